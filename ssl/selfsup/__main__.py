"""`python -m selfsup`, the same as `selfsup`."""

from selfsup.cli import main

main()
