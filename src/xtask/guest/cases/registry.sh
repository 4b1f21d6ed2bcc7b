# The root is an image whose layers are in a registry: what is read here is fetched from there.
same "a program with a library" Linux "$(python3 -c 'import os, re; print(os.uname().sysname)')"
git init -q repository
cd repository
echo content >file
git add file
git -c user.name=a -c user.email=a@b commit -q -m first
same "a commit" first "$(git log -1 --format=%s)"
