"""The sub-commands of `hf-explain`, one file each: `add_arguments(parser)` and `run(arguments) -> exit code`."""
