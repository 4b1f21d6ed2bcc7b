# inserts COUNT: each a transaction of its own.
inserts() {
    echo "create table t(n integer primary key, text);"
    for n in $(seq "$1"); do
        echo "insert into t(text) values ('$n $n $n $n');"
    done
}
{
    echo "pragma synchronous = off;"
    inserts 500
} >quick.sql
inserts 100 >synced.sql
timed sqlite sqlite3 -bail -init quick.sql quick.db .quit
timed sqlite-synced sqlite3 -bail -init synced.sql synced.db .quit
same "rows" "500 100" "$(sqlite3 quick.db 'select count(*) from t') $(sqlite3 synced.db 'select count(*) from t')"
