export HOME=/scratch
git config --global --add safe.directory '*'
timed git-clone --cold git clone -q --no-local /srv/bench/repository.git clone
# Newer than every file: git would read files that are as new as its index.
touch clone/.git/index
timed git-status-cold --cold git -C clone status --porcelain
timed git-status-warm git -C clone status --porcelain
