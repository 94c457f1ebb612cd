"""The parts of the check, a file each: a function that takes a `PartSetting` and fills `Findings`."""
