from . import circle
