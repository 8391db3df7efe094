"""What the commands besides the main job do, and then print; their arguments are in `simulator.command_line`."""
