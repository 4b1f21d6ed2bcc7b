timed compile --cold sh -ec '
    for source in /srv/bench/c/*.c; do
        gcc -c "$source"
    done
    gcc ./*.o -o program'
./program
