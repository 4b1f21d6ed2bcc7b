cd /srv/bench/python
timed import --cold python3 -B import_all.py
