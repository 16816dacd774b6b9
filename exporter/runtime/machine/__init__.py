"""What machine this is: processor, GPU, Jetson, and what it draws."""
