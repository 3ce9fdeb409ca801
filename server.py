"""Entry point for hosts that start a file: `python server.py [--sandbox]`."""

from fivetran_state.main import main

if __name__ == "__main__":
    main()
