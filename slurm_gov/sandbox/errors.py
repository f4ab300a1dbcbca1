"""What goes wrong with a sandbox, as one message a person can act on."""


class SandboxError(Exception):
    """A sandbox could not be brought up, found or taken down; the text says why."""
