"""What every package uses: errors, files, locks, the console. Knows nothing of ours."""
