"""`python -m headstart`: the command line, as `torchrun -m headstart` needs it."""

from headstart.cli import app

if __name__ == "__main__":
    app(prog_name="headstart")
