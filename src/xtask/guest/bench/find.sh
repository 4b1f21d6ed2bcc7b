# The whole root, with the size of each file.
timed find-cold --cold find / -xdev -fprintf /dev/null '%s %p\n'
timed find-warm find / -xdev -fprintf /dev/null '%s %p\n'
