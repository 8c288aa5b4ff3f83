"""What every livery process shares: the vocabulary of identity, the wire's stubs, and the runtime that carries them."""
