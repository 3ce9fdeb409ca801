"""The documentation: every command in it works, every block of code is checked, every link leads somewhere."""
