"""What an application imports to have its callers authorized: the middleware, and the `Decider` it asks."""
