-- The number of a service's virtual address in the node's range: its own as long as it is deployed. NULL: when it came
-- none was left. `address` counts on from the number given last, so that one that was freed is given again late.
ALTER TABLE services ADD COLUMN address INTEGER;
UPDATE services SET address =
    (SELECT count(*) FROM services AS other WHERE (other.app, other.service) <= (services.app, services.service));
CREATE UNIQUE INDEX services_address ON services (address);
INSERT INTO meta VALUES ('address', (SELECT count(*) FROM services));
