"""The commands besides the main job, one room each: arguments, then facts, then what is printed."""
