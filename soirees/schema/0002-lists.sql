-- What a filtered list leaves out is seen in an index: the long rows are read for what it shows alone.
DROP INDEX soirees_client;
CREATE INDEX soirees_client ON soirees (client_id, seq, statut, date);
CREATE INDEX soirees_statut ON soirees (statut, seq, date);
CREATE INDEX soirees_date ON soirees (seq, date);
