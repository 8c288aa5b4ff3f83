"""The commands, one module per noun, each imported when it is asked for; beside them what a few of them share."""
