BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('v3.2.0.a');
CREATE TABLE studies (
	study_id INTEGER NOT NULL, 
	study_name VARCHAR(512) NOT NULL, 
	PRIMARY KEY (study_id)
);
INSERT INTO "studies" VALUES(1,'search');
CREATE TABLE study_directions (
	study_direction_id INTEGER NOT NULL, 
	direction VARCHAR(8) NOT NULL, 
	study_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	PRIMARY KEY (study_direction_id), 
	UNIQUE (study_id, objective), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_directions" VALUES(1,'MAXIMIZE',1,0);
INSERT INTO "study_directions" VALUES(2,'MINIMIZE',1,1);
INSERT INTO "study_directions" VALUES(3,'MINIMIZE',1,2);
CREATE TABLE study_system_attributes (
	study_system_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_system_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_system_attributes" VALUES(1,1,'study:metric_names','["val_accuracy", "params", "macs"]');
CREATE TABLE study_user_attributes (
	study_user_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_user_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_user_attributes" VALUES(1,1,'num_images','{"train": 1079, "val": 359, "test": 359}');
INSERT INTO "study_user_attributes" VALUES(2,1,'speed','{"base": 8.981092443004825e-05, "per_gmac": 0.34674124263567424}');
INSERT INTO "study_user_attributes" VALUES(3,1,'peak_bytes','33951744');
INSERT INTO "study_user_attributes" VALUES(4,1,'overhead_device_seconds','6.284728336999706');
CREATE TABLE trial_heartbeats (
	trial_heartbeat_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	heartbeat DATETIME NOT NULL, 
	PRIMARY KEY (trial_heartbeat_id), 
	UNIQUE (trial_id), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_intermediate_values (
	trial_intermediate_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	step INTEGER NOT NULL, 
	intermediate_value FLOAT, 
	intermediate_value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_intermediate_value_id), 
	UNIQUE (trial_id, step), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_params (
	param_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	param_name VARCHAR(512), 
	param_value FLOAT, 
	distribution_json TEXT, 
	PRIMARY KEY (param_id), 
	UNIQUE (trial_id, param_name), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_params" VALUES(1,1,'mixer_1',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["pool", "attention", "spatial_mlp", "dwconv", "identity"]}}');
INSERT INTO "trial_params" VALUES(2,1,'mixer_2',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["pool", "attention", "spatial_mlp", "dwconv", "identity"]}}');
INSERT INTO "trial_params" VALUES(3,1,'mixer_3',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["pool", "attention", "spatial_mlp", "dwconv", "identity"]}}');
INSERT INTO "trial_params" VALUES(4,1,'mixer_4',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["pool", "attention", "spatial_mlp", "dwconv", "identity"]}}');
INSERT INTO "trial_params" VALUES(5,1,'size_1',3.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 3, "high": 9}}');
INSERT INTO "trial_params" VALUES(6,1,'size_2',3.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 3, "high": 9}}');
INSERT INTO "trial_params" VALUES(7,1,'size_3',3.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 3, "high": 9}}');
INSERT INTO "trial_params" VALUES(8,1,'size_4',3.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 3, "high": 9}}');
INSERT INTO "trial_params" VALUES(9,1,'norm_1',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["mln", "layer_norm", "batch_norm"]}}');
INSERT INTO "trial_params" VALUES(10,1,'norm_2',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["mln", "layer_norm", "batch_norm"]}}');
INSERT INTO "trial_params" VALUES(11,1,'norm_3',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["mln", "layer_norm", "batch_norm"]}}');
INSERT INTO "trial_params" VALUES(12,1,'norm_4',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["mln", "layer_norm", "batch_norm"]}}');
INSERT INTO "trial_params" VALUES(13,1,'width_1',32.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 32, "low": 32, "high": 128}}');
INSERT INTO "trial_params" VALUES(14,1,'width_2',64.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 64, "low": 64, "high": 256}}');
INSERT INTO "trial_params" VALUES(15,1,'width_3',128.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 64, "low": 128, "high": 384}}');
INSERT INTO "trial_params" VALUES(16,1,'width_4',256.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 128, "low": 256, "high": 768}}');
INSERT INTO "trial_params" VALUES(17,1,'depth',6.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 6, "low": 6, "high": 48}}');
INSERT INTO "trial_params" VALUES(18,1,'depth_ratio',6.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["1:1:3:1", "1:1:1:1", "1:1:2:2", "1:2:2:1", "1:4:6:1", "3:4:6:3", "2:1:1:1"]}}');
INSERT INTO "trial_params" VALUES(19,2,'mixer_1',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["pool", "attention", "spatial_mlp", "dwconv", "identity"]}}');
INSERT INTO "trial_params" VALUES(20,2,'mixer_2',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["pool", "attention", "spatial_mlp", "dwconv", "identity"]}}');
INSERT INTO "trial_params" VALUES(21,2,'mixer_3',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["pool", "attention", "spatial_mlp", "dwconv", "identity"]}}');
INSERT INTO "trial_params" VALUES(22,2,'mixer_4',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["pool", "attention", "spatial_mlp", "dwconv", "identity"]}}');
INSERT INTO "trial_params" VALUES(23,2,'size_1',3.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 3, "high": 9}}');
INSERT INTO "trial_params" VALUES(24,2,'size_2',3.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 3, "high": 9}}');
INSERT INTO "trial_params" VALUES(25,2,'size_3',3.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 3, "high": 9}}');
INSERT INTO "trial_params" VALUES(26,2,'size_4',3.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 3, "high": 9}}');
INSERT INTO "trial_params" VALUES(27,2,'norm_1',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["mln", "layer_norm", "batch_norm"]}}');
INSERT INTO "trial_params" VALUES(28,2,'norm_2',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["mln", "layer_norm", "batch_norm"]}}');
INSERT INTO "trial_params" VALUES(29,2,'norm_3',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["mln", "layer_norm", "batch_norm"]}}');
INSERT INTO "trial_params" VALUES(30,2,'norm_4',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["mln", "layer_norm", "batch_norm"]}}');
INSERT INTO "trial_params" VALUES(31,2,'width_1',32.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 32, "low": 32, "high": 128}}');
INSERT INTO "trial_params" VALUES(32,2,'width_2',64.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 64, "low": 64, "high": 256}}');
INSERT INTO "trial_params" VALUES(33,2,'width_3',128.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 64, "low": 128, "high": 384}}');
INSERT INTO "trial_params" VALUES(34,2,'width_4',256.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 128, "low": 256, "high": 768}}');
INSERT INTO "trial_params" VALUES(35,2,'depth',6.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 6, "low": 6, "high": 48}}');
INSERT INTO "trial_params" VALUES(36,2,'depth_ratio',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["1:1:3:1", "1:1:1:1", "1:1:2:2", "1:2:2:1", "1:4:6:1", "3:4:6:3", "2:1:1:1"]}}');
INSERT INTO "trial_params" VALUES(37,3,'mixer_1',4.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["pool", "attention", "spatial_mlp", "dwconv", "identity"]}}');
INSERT INTO "trial_params" VALUES(38,3,'mixer_2',4.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["pool", "attention", "spatial_mlp", "dwconv", "identity"]}}');
INSERT INTO "trial_params" VALUES(39,3,'mixer_3',4.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["pool", "attention", "spatial_mlp", "dwconv", "identity"]}}');
INSERT INTO "trial_params" VALUES(40,3,'mixer_4',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["pool", "attention", "spatial_mlp", "dwconv", "identity"]}}');
INSERT INTO "trial_params" VALUES(41,3,'size_1',3.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 3, "high": 9}}');
INSERT INTO "trial_params" VALUES(42,3,'size_2',3.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 3, "high": 9}}');
INSERT INTO "trial_params" VALUES(43,3,'size_3',3.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 3, "high": 9}}');
INSERT INTO "trial_params" VALUES(44,3,'size_4',3.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 3, "high": 9}}');
INSERT INTO "trial_params" VALUES(45,3,'norm_1',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["mln", "layer_norm", "batch_norm"]}}');
INSERT INTO "trial_params" VALUES(46,3,'norm_2',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["mln", "layer_norm", "batch_norm"]}}');
INSERT INTO "trial_params" VALUES(47,3,'norm_3',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["mln", "layer_norm", "batch_norm"]}}');
INSERT INTO "trial_params" VALUES(48,3,'norm_4',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["mln", "layer_norm", "batch_norm"]}}');
INSERT INTO "trial_params" VALUES(49,3,'width_1',32.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 32, "low": 32, "high": 128}}');
INSERT INTO "trial_params" VALUES(50,3,'width_2',128.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 64, "low": 64, "high": 256}}');
INSERT INTO "trial_params" VALUES(51,3,'width_3',128.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 64, "low": 128, "high": 384}}');
INSERT INTO "trial_params" VALUES(52,3,'width_4',256.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 128, "low": 256, "high": 768}}');
INSERT INTO "trial_params" VALUES(53,3,'depth',6.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 6, "low": 6, "high": 48}}');
INSERT INTO "trial_params" VALUES(54,3,'depth_ratio',6.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["1:1:3:1", "1:1:1:1", "1:1:2:2", "1:2:2:1", "1:4:6:1", "3:4:6:3", "2:1:1:1"]}}');
INSERT INTO "trial_params" VALUES(55,4,'mixer_1',4.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["pool", "attention", "spatial_mlp", "dwconv", "identity"]}}');
INSERT INTO "trial_params" VALUES(56,4,'mixer_2',4.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["pool", "attention", "spatial_mlp", "dwconv", "identity"]}}');
INSERT INTO "trial_params" VALUES(57,4,'mixer_3',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["pool", "attention", "spatial_mlp", "dwconv", "identity"]}}');
INSERT INTO "trial_params" VALUES(58,4,'mixer_4',4.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["pool", "attention", "spatial_mlp", "dwconv", "identity"]}}');
INSERT INTO "trial_params" VALUES(59,4,'size_1',3.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 3, "high": 9}}');
INSERT INTO "trial_params" VALUES(60,4,'size_2',3.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 3, "high": 9}}');
INSERT INTO "trial_params" VALUES(61,4,'size_3',3.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 3, "high": 9}}');
INSERT INTO "trial_params" VALUES(62,4,'size_4',3.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 3, "high": 9}}');
INSERT INTO "trial_params" VALUES(63,4,'norm_1',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["mln", "layer_norm", "batch_norm"]}}');
INSERT INTO "trial_params" VALUES(64,4,'norm_2',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["mln", "layer_norm", "batch_norm"]}}');
INSERT INTO "trial_params" VALUES(65,4,'norm_3',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["mln", "layer_norm", "batch_norm"]}}');
INSERT INTO "trial_params" VALUES(66,4,'norm_4',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["mln", "layer_norm", "batch_norm"]}}');
INSERT INTO "trial_params" VALUES(67,4,'width_1',32.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 32, "low": 32, "high": 128}}');
INSERT INTO "trial_params" VALUES(68,4,'width_2',64.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 64, "low": 64, "high": 256}}');
INSERT INTO "trial_params" VALUES(69,4,'width_3',128.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 64, "low": 128, "high": 384}}');
INSERT INTO "trial_params" VALUES(70,4,'width_4',256.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 128, "low": 256, "high": 768}}');
INSERT INTO "trial_params" VALUES(71,4,'depth',6.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 6, "low": 6, "high": 48}}');
INSERT INTO "trial_params" VALUES(72,4,'depth_ratio',6.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["1:1:3:1", "1:1:1:1", "1:1:2:2", "1:2:2:1", "1:4:6:1", "3:4:6:3", "2:1:1:1"]}}');
INSERT INTO "trial_params" VALUES(73,5,'mixer_1',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["pool", "attention", "spatial_mlp", "dwconv", "identity"]}}');
INSERT INTO "trial_params" VALUES(74,5,'mixer_2',4.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["pool", "attention", "spatial_mlp", "dwconv", "identity"]}}');
INSERT INTO "trial_params" VALUES(75,5,'mixer_3',4.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["pool", "attention", "spatial_mlp", "dwconv", "identity"]}}');
INSERT INTO "trial_params" VALUES(76,5,'mixer_4',4.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["pool", "attention", "spatial_mlp", "dwconv", "identity"]}}');
INSERT INTO "trial_params" VALUES(77,5,'size_1',5.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 3, "high": 9}}');
INSERT INTO "trial_params" VALUES(78,5,'size_2',3.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 3, "high": 9}}');
INSERT INTO "trial_params" VALUES(79,5,'size_3',3.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 3, "high": 9}}');
INSERT INTO "trial_params" VALUES(80,5,'size_4',3.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 3, "high": 9}}');
INSERT INTO "trial_params" VALUES(81,5,'norm_1',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["mln", "layer_norm", "batch_norm"]}}');
INSERT INTO "trial_params" VALUES(82,5,'norm_2',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["mln", "layer_norm", "batch_norm"]}}');
INSERT INTO "trial_params" VALUES(83,5,'norm_3',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["mln", "layer_norm", "batch_norm"]}}');
INSERT INTO "trial_params" VALUES(84,5,'norm_4',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["mln", "layer_norm", "batch_norm"]}}');
INSERT INTO "trial_params" VALUES(85,5,'width_1',32.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 32, "low": 32, "high": 128}}');
INSERT INTO "trial_params" VALUES(86,5,'width_2',64.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 64, "low": 64, "high": 256}}');
INSERT INTO "trial_params" VALUES(87,5,'width_3',128.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 64, "low": 128, "high": 384}}');
INSERT INTO "trial_params" VALUES(88,5,'width_4',256.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 128, "low": 256, "high": 768}}');
INSERT INTO "trial_params" VALUES(89,5,'depth',6.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 6, "low": 6, "high": 48}}');
INSERT INTO "trial_params" VALUES(90,5,'depth_ratio',3.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["1:1:3:1", "1:1:1:1", "1:1:2:2", "1:2:2:1", "1:4:6:1", "3:4:6:3", "2:1:1:1"]}}');
INSERT INTO "trial_params" VALUES(91,6,'mixer_1',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["pool", "attention", "spatial_mlp", "dwconv", "identity"]}}');
INSERT INTO "trial_params" VALUES(92,6,'mixer_2',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["pool", "attention", "spatial_mlp", "dwconv", "identity"]}}');
INSERT INTO "trial_params" VALUES(93,6,'mixer_3',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["pool", "attention", "spatial_mlp", "dwconv", "identity"]}}');
INSERT INTO "trial_params" VALUES(94,6,'mixer_4',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["pool", "attention", "spatial_mlp", "dwconv", "identity"]}}');
INSERT INTO "trial_params" VALUES(95,6,'size_1',3.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 3, "high": 9}}');
INSERT INTO "trial_params" VALUES(96,6,'size_2',3.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 3, "high": 9}}');
INSERT INTO "trial_params" VALUES(97,6,'size_3',3.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 3, "high": 9}}');
INSERT INTO "trial_params" VALUES(98,6,'size_4',3.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 3, "high": 9}}');
INSERT INTO "trial_params" VALUES(99,6,'norm_1',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["mln", "layer_norm", "batch_norm"]}}');
INSERT INTO "trial_params" VALUES(100,6,'norm_2',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["mln", "layer_norm", "batch_norm"]}}');
INSERT INTO "trial_params" VALUES(101,6,'norm_3',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["mln", "layer_norm", "batch_norm"]}}');
INSERT INTO "trial_params" VALUES(102,6,'norm_4',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["mln", "layer_norm", "batch_norm"]}}');
INSERT INTO "trial_params" VALUES(103,6,'width_1',32.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 32, "low": 32, "high": 128}}');
INSERT INTO "trial_params" VALUES(104,6,'width_2',64.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 64, "low": 64, "high": 256}}');
INSERT INTO "trial_params" VALUES(105,6,'width_3',128.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 64, "low": 128, "high": 384}}');
INSERT INTO "trial_params" VALUES(106,6,'width_4',256.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 128, "low": 256, "high": 768}}');
INSERT INTO "trial_params" VALUES(107,6,'depth',6.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 6, "low": 6, "high": 48}}');
INSERT INTO "trial_params" VALUES(108,6,'depth_ratio',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["1:1:3:1", "1:1:1:1", "1:1:2:2", "1:2:2:1", "1:4:6:1", "3:4:6:3", "2:1:1:1"]}}');
INSERT INTO "trial_params" VALUES(109,7,'mixer_1',4.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["pool", "attention", "spatial_mlp", "dwconv", "identity"]}}');
INSERT INTO "trial_params" VALUES(110,7,'mixer_2',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["pool", "attention", "spatial_mlp", "dwconv", "identity"]}}');
INSERT INTO "trial_params" VALUES(111,7,'mixer_3',4.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["pool", "attention", "spatial_mlp", "dwconv", "identity"]}}');
INSERT INTO "trial_params" VALUES(112,7,'mixer_4',4.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["pool", "attention", "spatial_mlp", "dwconv", "identity"]}}');
INSERT INTO "trial_params" VALUES(113,7,'size_1',3.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 3, "high": 9}}');
INSERT INTO "trial_params" VALUES(114,7,'size_2',7.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 3, "high": 9}}');
INSERT INTO "trial_params" VALUES(115,7,'size_3',3.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 3, "high": 9}}');
INSERT INTO "trial_params" VALUES(116,7,'size_4',3.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 3, "high": 9}}');
INSERT INTO "trial_params" VALUES(117,7,'norm_1',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["mln", "layer_norm", "batch_norm"]}}');
INSERT INTO "trial_params" VALUES(118,7,'norm_2',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["mln", "layer_norm", "batch_norm"]}}');
INSERT INTO "trial_params" VALUES(119,7,'norm_3',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["mln", "layer_norm", "batch_norm"]}}');
INSERT INTO "trial_params" VALUES(120,7,'norm_4',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["mln", "layer_norm", "batch_norm"]}}');
INSERT INTO "trial_params" VALUES(121,7,'width_1',64.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 32, "low": 32, "high": 128}}');
INSERT INTO "trial_params" VALUES(122,7,'width_2',64.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 64, "low": 64, "high": 256}}');
INSERT INTO "trial_params" VALUES(123,7,'width_3',128.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 64, "low": 128, "high": 384}}');
INSERT INTO "trial_params" VALUES(124,7,'width_4',256.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 128, "low": 256, "high": 768}}');
INSERT INTO "trial_params" VALUES(125,7,'depth',6.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 6, "low": 6, "high": 48}}');
INSERT INTO "trial_params" VALUES(126,7,'depth_ratio',3.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["1:1:3:1", "1:1:1:1", "1:1:2:2", "1:2:2:1", "1:4:6:1", "3:4:6:3", "2:1:1:1"]}}');
CREATE TABLE trial_system_attributes (
	trial_system_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_system_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_user_attributes (
	trial_user_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_user_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_user_attributes" VALUES(1,1,'progress','{"leases": [{"attempt": 1, "device_seconds": 7.006796095000027, "end": "complete"}], "curve": [{"epoch": 1, "val_accuracy": 0.5487465181058496, "train_loss": 2.26554012298584, "checkpoint": "epoch-0001.pt", "note": null}, {"epoch": 2, "val_accuracy": 0.7353760445682451, "train_loss": 1.887542724609375, "checkpoint": "epoch-0002.pt", "note": null}, {"epoch": 3, "val_accuracy": 0.7576601671309192, "train_loss": 1.6268658638000488, "checkpoint": "epoch-0003.pt", "note": null}, {"epoch": 4, "val_accuracy": 0.7799442896935933, "train_loss": 1.4937548637390137, "checkpoint": "epoch-0004.pt", "note": null}, {"epoch": 5, "val_accuracy": 0.807799442896936, "train_loss": 1.44227933883667, "checkpoint": "epoch-0005.pt", "note": null}, {"epoch": 6, "val_accuracy": 0.8161559888579387, "train_loss": 1.433944821357727, "checkpoint": "weights.pt", "note": null}]}');
INSERT INTO "trial_user_attributes" VALUES(2,2,'progress','{"leases": [{"attempt": 1, "device_seconds": 0.7068267300001025, "end": "complete"}], "curve": [{"epoch": 1, "val_accuracy": 0.6100278551532033, "train_loss": 2.2581682205200195, "checkpoint": "epoch-0001.pt", "note": null}, {"epoch": 2, "val_accuracy": 0.7325905292479109, "train_loss": 1.8607442378997803, "checkpoint": "epoch-0002.pt", "note": null}, {"epoch": 3, "val_accuracy": 0.7493036211699164, "train_loss": 1.6063963174819946, "checkpoint": "epoch-0003.pt", "note": null}, {"epoch": 4, "val_accuracy": 0.8217270194986073, "train_loss": 1.4851007461547852, "checkpoint": "epoch-0004.pt", "note": null}, {"epoch": 5, "val_accuracy": 0.8440111420612814, "train_loss": 1.4510889053344727, "checkpoint": "epoch-0005.pt", "note": null}, {"epoch": 6, "val_accuracy": 0.841225626740947, "train_loss": 1.4306018352508545, "checkpoint": "weights.pt", "note": null}]}');
INSERT INTO "trial_user_attributes" VALUES(3,3,'progress','{"leases": [{"attempt": 1, "device_seconds": 0.814677336999921, "end": "complete"}], "curve": [{"epoch": 1, "val_accuracy": 0.5459610027855153, "train_loss": 2.236447811126709, "checkpoint": "epoch-0001.pt", "note": null}, {"epoch": 2, "val_accuracy": 0.6713091922005571, "train_loss": 1.8119611740112305, "checkpoint": "epoch-0002.pt", "note": null}, {"epoch": 3, "val_accuracy": 0.7325905292479109, "train_loss": 1.5655765533447266, "checkpoint": "epoch-0003.pt", "note": null}, {"epoch": 4, "val_accuracy": 0.7743732590529248, "train_loss": 1.4166779518127441, "checkpoint": "epoch-0004.pt", "note": null}, {"epoch": 5, "val_accuracy": 0.841225626740947, "train_loss": 1.3783397674560547, "checkpoint": "epoch-0005.pt", "note": null}, {"epoch": 6, "val_accuracy": 0.83008356545961, "train_loss": 1.3703413009643555, "checkpoint": "weights.pt", "note": null}]}');
INSERT INTO "trial_user_attributes" VALUES(4,4,'progress','{"leases": [{"attempt": 1, "device_seconds": 1.071586219999972, "end": "complete"}], "curve": [{"epoch": 1, "val_accuracy": 0.5264623955431755, "train_loss": 2.241354465484619, "checkpoint": "epoch-0001.pt", "note": null}, {"epoch": 2, "val_accuracy": 0.6852367688022284, "train_loss": 1.8292495012283325, "checkpoint": "epoch-0002.pt", "note": null}, {"epoch": 3, "val_accuracy": 0.6629526462395543, "train_loss": 1.611232042312622, "checkpoint": "epoch-0003.pt", "note": null}, {"epoch": 4, "val_accuracy": 0.6713091922005571, "train_loss": 1.491708517074585, "checkpoint": "epoch-0004.pt", "note": null}, {"epoch": 5, "val_accuracy": 0.7883008356545961, "train_loss": 1.425706148147583, "checkpoint": "epoch-0005.pt", "note": null}, {"epoch": 6, "val_accuracy": 0.8328690807799443, "train_loss": 1.419241189956665, "checkpoint": "weights.pt", "note": null}]}');
INSERT INTO "trial_user_attributes" VALUES(5,5,'progress','{"leases": [{"attempt": 1, "device_seconds": 0.15430641300008574, "end": "stopped"}], "curve": [{"epoch": 1, "val_accuracy": 0.520891364902507, "train_loss": 2.2744040489196777, "checkpoint": "epoch-0001.pt", "note": null}]}');
INSERT INTO "trial_user_attributes" VALUES(6,5,'reason','"at epoch 1 even an accuracy of 83.09% would add nothing to the front"');
INSERT INTO "trial_user_attributes" VALUES(7,6,'progress','{"leases": [{"attempt": 1, "device_seconds": 0.21579065000014452, "end": "stopped"}], "curve": [{"epoch": 1, "val_accuracy": 0.4958217270194986, "train_loss": 2.2775230407714844, "checkpoint": "epoch-0001.pt", "note": null}]}');
INSERT INTO "trial_user_attributes" VALUES(8,6,'reason','"at epoch 1 even an accuracy of 82.21% would add nothing to the front"');
INSERT INTO "trial_user_attributes" VALUES(9,7,'progress','{"leases": [{"attempt": 1, "device_seconds": 0.26871224999968035, "end": null}], "curve": [{"epoch": 1, "val_accuracy": 0.5515320334261838, "train_loss": 2.282642364501953, "checkpoint": "epoch-0001.pt", "note": null}, {"epoch": 2, "val_accuracy": 0.7270194986072424, "train_loss": 1.930233359336853, "checkpoint": "epoch-0002.pt", "note": null}]}');
CREATE TABLE trial_values (
	trial_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	value FLOAT, 
	value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_value_id), 
	UNIQUE (trial_id, objective), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_values" VALUES(1,1,0,8.16155988857938718972e-01,'FINITE');
INSERT INTO "trial_values" VALUES(2,1,1,18494.0,'FINITE');
INSERT INTO "trial_values" VALUES(3,1,2,70208.0,'FINITE');
INSERT INTO "trial_values" VALUES(4,2,0,0.841225626740947,'FINITE');
INSERT INTO "trial_values" VALUES(5,2,1,22598.0,'FINITE');
INSERT INTO "trial_values" VALUES(6,2,2,70208.0,'FINITE');
INSERT INTO "trial_values" VALUES(7,3,0,0.83008356545961,'FINITE');
INSERT INTO "trial_values" VALUES(8,3,1,21566.0,'FINITE');
INSERT INTO "trial_values" VALUES(9,3,2,104000.0,'FINITE');
INSERT INTO "trial_values" VALUES(10,4,0,8.32869080779944259695e-01,'FINITE');
INSERT INTO "trial_values" VALUES(11,4,1,18494.0,'FINITE');
INSERT INTO "trial_values" VALUES(12,4,2,70208.0,'FINITE');
CREATE TABLE trials (
	trial_id INTEGER NOT NULL, 
	number INTEGER, 
	study_id INTEGER, 
	state VARCHAR(8) NOT NULL, 
	datetime_start DATETIME, 
	datetime_complete DATETIME, 
	PRIMARY KEY (trial_id), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "trials" VALUES(1,0,1,'COMPLETE','2026-11-24 18:31:40.494732','2026-11-24 18:31:47.534540');
INSERT INTO "trials" VALUES(2,1,1,'COMPLETE','2026-11-24 18:31:47.537135','2026-11-24 18:31:48.265634');
INSERT INTO "trials" VALUES(3,2,1,'COMPLETE','2026-11-24 18:31:48.274991','2026-11-24 18:31:49.183866');
INSERT INTO "trials" VALUES(4,3,1,'COMPLETE','2026-11-24 18:31:49.199032','2026-11-24 18:31:50.406595');
INSERT INTO "trials" VALUES(5,4,1,'PRUNED','2026-11-24 18:31:50.416443','2026-11-24 18:31:50.804969');
INSERT INTO "trials" VALUES(6,5,1,'PRUNED','2026-11-24 18:31:50.813897','2026-11-24 18:31:51.069667');
INSERT INTO "trials" VALUES(7,6,1,'RUNNING','2026-11-24 18:31:51.075605',NULL);
CREATE TABLE version_info (
	version_info_id INTEGER NOT NULL, 
	schema_version INTEGER, 
	library_version VARCHAR(256), 
	PRIMARY KEY (version_info_id), 
	CHECK (version_info_id=1)
);
INSERT INTO "version_info" VALUES(1,12,'5.0.0');
CREATE UNIQUE INDEX ix_studies_study_name ON studies (study_name);
CREATE INDEX ix_trials_study_id ON trials (study_id);
COMMIT;
