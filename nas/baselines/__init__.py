"""The competitors of the gradient search: black-box strategies over the same space, and the loop around them."""
