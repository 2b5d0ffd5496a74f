BEGIN TRANSACTION;
CREATE TABLE aliases (
	alias VARCHAR NOT NULL, 
	setting_id INTEGER NOT NULL, 
	PRIMARY KEY (alias), 
	FOREIGN KEY(setting_id) REFERENCES settings (id) ON DELETE CASCADE
);
INSERT INTO "aliases" VALUES('former',1);
CREATE TABLE configurable_features (
	setting_id INTEGER NOT NULL, 
	feature VARCHAR NOT NULL, 
	PRIMARY KEY (setting_id, feature), 
	FOREIGN KEY(setting_id) REFERENCES settings (id) ON DELETE CASCADE, 
	FOREIGN KEY(feature) REFERENCES context_features (name)
);
INSERT INTO "configurable_features" VALUES(1,'user');
CREATE TABLE context_features (
	name VARCHAR NOT NULL, 
	position INTEGER NOT NULL, 
	PRIMARY KEY (name), 
	UNIQUE (position)
);
INSERT INTO "context_features" VALUES('environment',0);
INSERT INTO "context_features" VALUES('user',1);
INSERT INTO "context_features" VALUES('theme',2);
CREATE TABLE rules (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	setting_id INTEGER NOT NULL, 
	conditions VARCHAR NOT NULL, 
	value TEXT NOT NULL, 
	metadata TEXT NOT NULL, 
	UNIQUE (setting_id, conditions), 
	FOREIGN KEY(setting_id) REFERENCES settings (id) ON DELETE CASCADE
);
INSERT INTO "rules" VALUES(5,1,'[["user", "jim"]]','8','{}');
CREATE TABLE settings (
	id INTEGER NOT NULL, 
	name VARCHAR NOT NULL, 
	type VARCHAR NOT NULL, 
	default_value TEXT NOT NULL, 
	metadata TEXT NOT NULL, 
	version VARCHAR NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (name)
);
INSERT INTO "settings" VALUES(1,'s','int','7','{}','1.1');
CREATE INDEX ix_aliases_setting_id ON aliases (setting_id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('rules',5);
COMMIT;
