"""slmc-run as a program: which one serves, its answers to jobs, and a session over a pipe."""
