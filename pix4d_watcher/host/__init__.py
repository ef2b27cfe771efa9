"""What this program needs from the machine: systemd, log lines, the lock and the table of mounts; imports only core."""
