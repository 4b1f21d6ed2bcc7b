# Operations and seed are fixed: a failure is found again.
fsx -f /vfsd/fsx.toml -N "${OPERATIONS:-100000}" -S 20250520 -P /tmp /scratch/file
same "size of fsx's artifacts" "" "$(ls /tmp/*.fsx* 2>/dev/null || true)"
