export HOME=/scratch GIT_AUTHOR_DATE="2025-01-01T00:00:00Z" GIT_COMMITTER_DATE="2025-01-01T00:00:00Z"
git config --global user.name tester
git config --global user.email tester@localhost
git config --global init.defaultBranch main

git init -q original
cd original
for round in 1 2 3; do
    for folder in a b c d; do
        mkdir -p "$folder"
        for file in $(seq 50); do
            seq "$((round * file))" >"$folder/file-$file"
        done
    done
    ln -sf "a/file-$round" link
    git add -A
    git commit -q -m "round $round"
done
cd ..

# Through a pack, and by hard links.
git clone -q --no-local original packed
git clone -q original linked
for clone in packed linked; do
    git -C "$clone" fsck --full --strict --no-progress
    same "status of $clone" "" "$(git -C "$clone" status --porcelain)"
    diff -r --exclude=.git original "$clone"
done
git -C original gc -q
drop_caches
git -C original fsck --full --strict --no-progress
git -C packed pull -q
same "number of commits" 3 "$(git -C packed rev-list --count HEAD)"
