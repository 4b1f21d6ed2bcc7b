# One fio row. From before: ROW, RW, BLOCK, DIRECT, JOBS, LOOPS.
# Each job has a file of its own, which it reads or writes once a loop, whole and
# in blocks that do not repeat; fio drops the guest's pages of it before each.
python3 - <<'THE-END'
import sys
sys.path.insert(0, "/vfsd")
from timed import settle
settle(True)
THE-END
fio --name="jobs$JOBS" --directory=/srv/bench/fio --filename_format='$jobname.$jobnum' --allow_file_create=0 \
    --ioengine=psync --rw="$RW" --bs="$BLOCK" --direct="$DIRECT" --numjobs="$JOBS" --loops="$LOOPS" \
    --group_reporting --eta=never --output-format=json --output=result.json
python3 - "$ROW" "$RW" "$BLOCK" <<'THE-END'
import json, sys
sys.path.insert(0, "/vfsd")
from timed import figure
row, rw, block = sys.argv[1:]
job = json.load(open("result.json"))["jobs"][0]
side = job["read" if rw.endswith("read") else "write"]
figure(row, side["iops"] if block == "4k" else side["bw_bytes"] / 2**20)
THE-END
