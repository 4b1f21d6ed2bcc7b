# The first command of a guest, and all that there is to read.
set -e
python3 -c "import json"
echo "figure command"
find / -xdev -type f -print0 | xargs -0 cat >/dev/null
echo "figure tree"
