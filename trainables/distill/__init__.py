"""The distillation methods, one file each; none imports another. Imports nothing."""
