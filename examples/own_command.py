"""The `matl` command with parts of your own: `python own_command.py list aggregators`."""

# --8<-- [start:command]
import custom_mode  # importing a module registers its parts
import own_attack
import own_rule

from matl.cli import main

main()
# --8<-- [end:command]
