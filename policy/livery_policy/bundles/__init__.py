"""Where policies come from and which of them are in force: files today, signed bundles later."""
