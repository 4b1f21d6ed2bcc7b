# Makes a MariaDB data directory with tables in a tree that is not served yet.
install -d -o 65534 -g 65534 "$1/mariadb" "$folder"
$nobody mariadb-install-db --no-defaults --datadir="$1/mariadb/data" --skip-test-db --auth-root-authentication-method=normal >"$folder/log"
started "$1/mariadb/data"
ask "CREATE DATABASE shop"
ask "CREATE TABLE shop.account (id INT PRIMARY KEY, balance INT NOT NULL, filler CHAR(80) NOT NULL) ENGINE=InnoDB
    SELECT seq AS id, 0 AS balance, REPEAT('x', 80) AS filler FROM shop.seq_1_to_50000"
ask "CREATE TABLE shop.old (id INT PRIMARY KEY) ENGINE=Aria SELECT seq AS id FROM shop.seq_1_to_1000"
stopped
tar --sort=name --pax-option=delete=atime,delete=ctime -cf - -C "$1" . | sha256sum >"$3/fingerprint"
