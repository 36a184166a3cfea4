BEGIN;
INSERT INTO words VALUES ('first', 1), ('second @20@', 2);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) INSERT INTO words SELECT 'w' || i, i FROM n;
COMMIT;
.separator " "
.import words.txt words
SELECT count(*), sum(number) FROM words;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000) SELECT 'work', sum(i * i % 7) FROM n;
DELETE FROM words WHERE number % 7 = 3;
