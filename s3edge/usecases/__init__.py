"""What the product does: one async function a file, with the ports it needs as keyword arguments."""
