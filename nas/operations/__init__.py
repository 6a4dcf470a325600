"""The operations that networks and supernets are made of."""
