"""Search spaces: their choices, their supernets and their stand-alone networks."""
