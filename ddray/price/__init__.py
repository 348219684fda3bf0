"""What a sweep costs before it runs: hours, by what they rest on. No torch, no Ray: ``ddray plan`` reads this.

devices.py     graphics cards and CPUs by name: memory, assumed speed; what this machine has
measured.py    what finished stages took, by cost class and device; kept in the store as a hint
estimates.py   a stage's seconds on a device: measured, scaled from another device, or assumed
fitting.py     shares of the card that is there, for what stages hold
bill.py        hours by kind, method and grid; the longest chain; the space on the disk
"""
