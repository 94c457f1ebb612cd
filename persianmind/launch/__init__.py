"""The front door: `persianmind train` starts the ranks of this machine and shows what they say."""
