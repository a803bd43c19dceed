"""The same as `gen report`."""

from gen.verbs.report import main

if __name__ == "__main__":
    main()
