"""Words for a person about an error of another library."""


def reason(error: Exception) -> str:
    """The first line of an error's message, or its type where it has none."""
    return str(error).partition("\n")[0] or type(error).__name__
