"""What the add-on raises: one line that names the problem and carries its remedy."""


class FixItError(Exception):
    """A problem that the person at the screen can fix; `str()` is one line, ready for a report or a log."""

    def __init__(self, problem: str, remedy: str) -> None:
        """Keep the problem (the thing, what was expected, what was found) and the remedy (what to do now)."""
        self.problem = " ".join(problem.split())
        self.remedy = " ".join(remedy.split())
        super().__init__(f"{self.problem.rstrip('.')}. {self.remedy}")
