"""Pictures: a user's own in folders, and the data sets that come with packages or from torchvision."""
