from .circle import NAME as OTHER

NAME = "square @30@ beside " + OTHER


def area(n):
    return n * n * int("@4@".strip("@"))
