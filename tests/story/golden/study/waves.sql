--
-- PostgreSQL database dump
--


-- Dumped from database version 15.18 (Debian 15.18-0+deb12u1)
-- Dumped by pg_dump version 15.18 (Debian 15.18-0+deb12u1)

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: rs_measurement; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.rs_measurement (
    trial_id integer NOT NULL,
    budget double precision NOT NULL,
    name text NOT NULL,
    value double precision NOT NULL
);


--
-- Name: rs_objective; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.rs_objective (
    study_id integer NOT NULL,
    "position" integer NOT NULL,
    name text NOT NULL,
    direction text NOT NULL
);


--
-- Name: rs_study; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.rs_study (
    id integer NOT NULL,
    name text NOT NULL,
    fingerprint json NOT NULL,
    space json NOT NULL,
    reference_point json NOT NULL,
    ideal json NOT NULL,
    dense json NOT NULL,
    budget double precision NOT NULL,
    created timestamp without time zone NOT NULL,
    artifacts text DEFAULT ''::text NOT NULL,
    target integer
);


--
-- Name: rs_trial; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.rs_trial (
    id integer NOT NULL,
    study_id integer NOT NULL,
    number integer NOT NULL,
    state text NOT NULL,
    budget double precision NOT NULL,
    rng_seed bigint NOT NULL,
    worker text NOT NULL,
    attempt integer NOT NULL,
    started timestamp without time zone NOT NULL,
    finished timestamp without time zone NOT NULL,
    eligible boolean NOT NULL,
    dominated_by integer,
    reason text NOT NULL,
    point_key text NOT NULL,
    sampler text NOT NULL,
    point json NOT NULL
);


--
-- Name: pareto_front; Type: VIEW; Schema: public; Owner: -
--

CREATE VIEW public.pareto_front AS
 SELECT rs_study.name AS study,
    rs_trial.number AS trial,
    rs_trial.id AS trial_id,
    rs_measurement.name AS measurement,
    rs_measurement.value,
    rs_objective.direction
   FROM (((public.rs_trial
     JOIN public.rs_study ON ((rs_study.id = rs_trial.study_id)))
     JOIN public.rs_measurement ON (((rs_measurement.trial_id = rs_trial.id) AND (rs_measurement.budget = rs_trial.budget))))
     LEFT JOIN public.rs_objective ON (((rs_objective.study_id = rs_trial.study_id) AND (rs_objective.name = rs_measurement.name))))
  WHERE (rs_trial.eligible AND (rs_trial.dominated_by IS NULL));


--
-- Name: rs_artifact; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.rs_artifact (
    trial_id integer NOT NULL,
    kind text NOT NULL,
    location text NOT NULL,
    sha256 text NOT NULL,
    bytes bigint NOT NULL
);


--
-- Name: rs_choice; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.rs_choice (
    trial_id integer NOT NULL,
    layer text NOT NULL,
    factorization text NOT NULL,
    axis text NOT NULL,
    value double precision
);


--
-- Name: rs_claim; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.rs_claim (
    study_id integer NOT NULL,
    number integer NOT NULL,
    point json NOT NULL,
    point_key text NOT NULL,
    worker text NOT NULL,
    attempt integer NOT NULL,
    started timestamp without time zone NOT NULL,
    heartbeat timestamp without time zone NOT NULL,
    sampler text NOT NULL,
    budget double precision DEFAULT '0'::double precision NOT NULL
);


--
-- Name: rs_prior; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.rs_prior (
    study_id integer NOT NULL,
    layer text NOT NULL,
    factorization text NOT NULL,
    axis text NOT NULL,
    rank integer NOT NULL,
    full_rank integer NOT NULL,
    noise_variance double precision,
    energy_kept double precision,
    break_even double precision
);


--
-- Name: rs_study_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.rs_study_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: rs_study_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.rs_study_id_seq OWNED BY public.rs_study.id;


--
-- Name: rs_trial_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.rs_trial_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: rs_trial_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.rs_trial_id_seq OWNED BY public.rs_trial.id;


--
-- Name: rs_version; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.rs_version (
    version_num character varying(32) NOT NULL
);


--
-- Name: rs_study id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.rs_study ALTER COLUMN id SET DEFAULT nextval('public.rs_study_id_seq'::regclass);


--
-- Name: rs_trial id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.rs_trial ALTER COLUMN id SET DEFAULT nextval('public.rs_trial_id_seq'::regclass);


--
-- Data for Name: rs_artifact; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.rs_artifact VALUES (7, 'checkpoint', 'a4ee605db2f61209-1a32b97f84fb65c7.checkpoint', '1a32b97f84fb65c7d669a5d24a6dc17932d93a30d9b3fdcf037c5aca171e70dc', 37855);
INSERT INTO public.rs_artifact VALUES (8, 'model', '4ed9ce49c76f3966-207ef1086e6dc449.safetensors', '207ef1086e6dc44983e3dd739898fe6f3ba22869c036d1bb1f329e0f516f8085', 2016);
INSERT INTO public.rs_artifact VALUES (8, 'coded', '4ed9ce49c76f3966-3dbbd61c1aa0e7af.coded', '3dbbd61c1aa0e7afca96ea61f6d2d399db08ceffbc65d36acca2b0ade488558c', 295);
INSERT INTO public.rs_artifact VALUES (10, 'checkpoint', 'a8c8714e775fea76-ff01baa1b041a742.checkpoint', 'ff01baa1b041a742fcb3b08b60c01886b72bfa4f40060e5c7c83829cd57ae3f7', 36763);
INSERT INTO public.rs_artifact VALUES (11, 'model', 'f265d816f12e2440-49374807e8c403f5.safetensors', '49374807e8c403f5306eec52ab3e14e727d6dca739f1472930c072f59b7ff312', 1632);
INSERT INTO public.rs_artifact VALUES (11, 'coded', 'f265d816f12e2440-8d73b3cf8b63eaf7.coded', '8d73b3cf8b63eaf70e4515a3ce98f10d70d6dbe83329b89287f3ef8dc805935f', 246);
INSERT INTO public.rs_artifact VALUES (14, 'model', 'd74c8f4a40554c56-adda352ebce4f659.safetensors', 'adda352ebce4f659d07c3a24c1e205b5dc5293617eadeef477b4d2cb5a932c8e', 1844);
INSERT INTO public.rs_artifact VALUES (14, 'coded', 'd74c8f4a40554c56-41c81cf4be762d97.coded', '41c81cf4be762d97090639a9e6daa9cd69ca37b17716e1fc197d3c4a88454b78', 1096);
INSERT INTO public.rs_artifact VALUES (15, 'checkpoint', 'fd55a5fb4195d8e7-36e825719a2a6ae8.checkpoint', '36e825719a2a6ae8bc5aa331572e864a3ad3c6998af801dccfbd18e107aa950b', 35152);
INSERT INTO public.rs_artifact VALUES (16, 'checkpoint', '600228c3e6c76d4e-2c18830271799b1b.checkpoint', '2c18830271799b1b2ccb8eae310c1c2c81b092b525a1e0b0ff2f80b73a59a52e', 35428);
INSERT INTO public.rs_artifact VALUES (17, 'model', '8636b48ac150257f-94c0ea997d8323e1.safetensors', '94c0ea997d8323e13755dbcfb779c2b6697862cbcaecd4af997a617c59c7dae8', 1540);
INSERT INTO public.rs_artifact VALUES (17, 'coded', '8636b48ac150257f-df56349b2d255fcb.coded', 'df56349b2d255fcb17c7eacf01e8aec6f24b2309d661a84ac95838c0679f6aae', 244);
INSERT INTO public.rs_artifact VALUES (18, 'checkpoint', '5497c5ab107a4019-372f9c8b2b4cdce3.checkpoint', '372f9c8b2b4cdce3680badc469c11cf09500eb67fd21c5d5da62b6dfc3f73290', 36232);


--
-- Data for Name: rs_choice; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.rs_choice VALUES (1, 'second', 'dense', '', NULL);
INSERT INTO public.rs_choice VALUES (1, 'last', 'dense', '', NULL);
INSERT INTO public.rs_choice VALUES (2, 'second', 'dense', '', NULL);
INSERT INTO public.rs_choice VALUES (2, 'last', 'dense', '', NULL);
INSERT INTO public.rs_choice VALUES (5, 'second', 'tucker2', 'rank_out', 5);
INSERT INTO public.rs_choice VALUES (5, 'second', 'tucker2', 'rank_in', 2);
INSERT INTO public.rs_choice VALUES (5, 'last', 'dense', '', NULL);
INSERT INTO public.rs_choice VALUES (6, 'second', 'tucker2', 'rank_out', 1);
INSERT INTO public.rs_choice VALUES (6, 'second', 'tucker2', 'rank_in', 1);
INSERT INTO public.rs_choice VALUES (6, 'last', 'dense', '', NULL);
INSERT INTO public.rs_choice VALUES (7, 'second', 'svd', 'rank', 4);
INSERT INTO public.rs_choice VALUES (7, 'last', 'svd', 'rank', 2);
INSERT INTO public.rs_choice VALUES (8, 'second', 'tucker2', 'rank_out', 2);
INSERT INTO public.rs_choice VALUES (8, 'second', 'tucker2', 'rank_in', 2);
INSERT INTO public.rs_choice VALUES (8, 'last', 'dense', '', NULL);
INSERT INTO public.rs_choice VALUES (10, 'second', 'tucker2', 'rank_out', 4);
INSERT INTO public.rs_choice VALUES (10, 'second', 'tucker2', 'rank_in', 3);
INSERT INTO public.rs_choice VALUES (10, 'last', 'svd', 'rank', 2);
INSERT INTO public.rs_choice VALUES (11, 'second', 'svd', 'rank', 1);
INSERT INTO public.rs_choice VALUES (11, 'last', 'svd', 'rank', 1);
INSERT INTO public.rs_choice VALUES (14, 'second', 'tucker2', 'rank_out', 1);
INSERT INTO public.rs_choice VALUES (14, 'second', 'tucker2', 'rank_in', 1);
INSERT INTO public.rs_choice VALUES (14, 'last', 'dense', '', NULL);
INSERT INTO public.rs_choice VALUES (15, 'second', 'tucker2', 'rank_out', 1);
INSERT INTO public.rs_choice VALUES (15, 'second', 'tucker2', 'rank_in', 1);
INSERT INTO public.rs_choice VALUES (15, 'last', 'dense', '', NULL);
INSERT INTO public.rs_choice VALUES (16, 'second', 'svd', 'rank', 1);
INSERT INTO public.rs_choice VALUES (16, 'last', 'dense', '', NULL);
INSERT INTO public.rs_choice VALUES (17, 'second', 'tucker2', 'rank_out', 1);
INSERT INTO public.rs_choice VALUES (17, 'second', 'tucker2', 'rank_in', 1);
INSERT INTO public.rs_choice VALUES (17, 'last', 'svd', 'rank', 1);
INSERT INTO public.rs_choice VALUES (18, 'second', 'tucker2', 'rank_out', 3);
INSERT INTO public.rs_choice VALUES (18, 'second', 'tucker2', 'rank_in', 2);
INSERT INTO public.rs_choice VALUES (18, 'last', 'dense', '', NULL);


--
-- Data for Name: rs_claim; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.rs_claim VALUES (1, 13, '{"layers": {"second": {"factorization": "tucker2", "rank_out": 4, "rank_in": 2}, "last": {"factorization": "svd", "rank": 2}}, "penalties": {"orthogonality": 0.01, "entropy": 0.5}}', '3e4846d92558992858744e12d48f6e1d0fec9a89c93fc27169a82f06b7d36341', 'vm:25550', 1, '2026-11-27 20:59:12.891475', '2026-11-27 20:59:12.891475', '{"label": "auto", "coordinates": {"weakening": 0.46284330474687585, "factorization:second": "tucker2", "multiplier:second": 0.3885299142406275, "multiplier:second:2": -0.38852991424062766, "factorization:last": "svd", "multiplier:last": -0.07431339050624804, "entropy": -0.3010299956639812}, "attributes": {}, "parents": {}}', 0.5);


--
-- Data for Name: rs_measurement; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.rs_measurement VALUES (1, 0.5, 'params', 640);
INSERT INTO public.rs_measurement VALUES (1, 0.5, 'macs', 10496);
INSERT INTO public.rs_measurement VALUES (2, 0.5, 'params', 640);
INSERT INTO public.rs_measurement VALUES (2, 0.5, 'macs', 10496);
INSERT INTO public.rs_measurement VALUES (5, 0.5, 'error', 0.775);
INSERT INTO public.rs_measurement VALUES (5, 0.5, 'params', 350);
INSERT INTO public.rs_measurement VALUES (5, 0.5, 'macs', 6432);
INSERT INTO public.rs_measurement VALUES (5, 0.5, 'bits', 2800);
INSERT INTO public.rs_measurement VALUES (7, 0.5, 'error', 0.825);
INSERT INTO public.rs_measurement VALUES (7, 0.5, 'params', 400);
INSERT INTO public.rs_measurement VALUES (7, 0.5, 'macs', 7496);
INSERT INTO public.rs_measurement VALUES (7, 0.5, 'bits', 2816);
INSERT INTO public.rs_measurement VALUES (8, 0.5, 'error', 0.8083333333333333);
INSERT INTO public.rs_measurement VALUES (8, 0.5, 'params', 272);
INSERT INTO public.rs_measurement VALUES (8, 0.5, 'macs', 5184);
INSERT INTO public.rs_measurement VALUES (8, 0.5, 'bits', 2368);
INSERT INTO public.rs_measurement VALUES (8, 1, 'error', 0.7833333333333333);
INSERT INTO public.rs_measurement VALUES (8, 1, 'params', 272);
INSERT INTO public.rs_measurement VALUES (8, 1, 'macs', 5184);
INSERT INTO public.rs_measurement VALUES (8, 1, 'bits', 2360);
INSERT INTO public.rs_measurement VALUES (10, 0.5, 'error', 0.7833333333333333);
INSERT INTO public.rs_measurement VALUES (10, 0.5, 'params', 310);
INSERT INTO public.rs_measurement VALUES (10, 0.5, 'macs', 6920);
INSERT INTO public.rs_measurement VALUES (10, 0.5, 'bits', 2632);
INSERT INTO public.rs_measurement VALUES (11, 0.5, 'error', 0.85);
INSERT INTO public.rs_measurement VALUES (11, 0.5, 'params', 178);
INSERT INTO public.rs_measurement VALUES (11, 0.5, 'macs', 4484);
INSERT INTO public.rs_measurement VALUES (11, 0.5, 'bits', 1976);
INSERT INTO public.rs_measurement VALUES (11, 1, 'error', 0.8416666666666667);
INSERT INTO public.rs_measurement VALUES (11, 1, 'params', 178);
INSERT INTO public.rs_measurement VALUES (11, 1, 'macs', 4484);
INSERT INTO public.rs_measurement VALUES (11, 1, 'bits', 1968);
INSERT INTO public.rs_measurement VALUES (14, 0.5, 'error', 0.7666666666666667);
INSERT INTO public.rs_measurement VALUES (14, 0.5, 'params', 231);
INSERT INTO public.rs_measurement VALUES (14, 0.5, 'macs', 4240);
INSERT INTO public.rs_measurement VALUES (14, 0.5, 'bits', 8768);
INSERT INTO public.rs_measurement VALUES (14, 1, 'error', 0.75);
INSERT INTO public.rs_measurement VALUES (14, 1, 'params', 231);
INSERT INTO public.rs_measurement VALUES (14, 1, 'macs', 4240);
INSERT INTO public.rs_measurement VALUES (14, 1, 'bits', 8768);
INSERT INTO public.rs_measurement VALUES (15, 0.5, 'error', 0.8083333333333333);
INSERT INTO public.rs_measurement VALUES (15, 0.5, 'params', 231);
INSERT INTO public.rs_measurement VALUES (15, 0.5, 'macs', 4240);
INSERT INTO public.rs_measurement VALUES (15, 0.5, 'bits', 2192);
INSERT INTO public.rs_measurement VALUES (16, 0.5, 'error', 0.7166666666666667);
INSERT INTO public.rs_measurement VALUES (16, 0.5, 'params', 270);
INSERT INTO public.rs_measurement VALUES (16, 0.5, 'macs', 4576);
INSERT INTO public.rs_measurement VALUES (16, 0.5, 'bits', 2216);
INSERT INTO public.rs_measurement VALUES (17, 0.5, 'error', 0.8916666666666667);
INSERT INTO public.rs_measurement VALUES (17, 0.5, 'params', 139);
INSERT INTO public.rs_measurement VALUES (17, 0.5, 'macs', 4148);
INSERT INTO public.rs_measurement VALUES (17, 0.5, 'bits', 1960);
INSERT INTO public.rs_measurement VALUES (17, 1, 'error', 0.875);
INSERT INTO public.rs_measurement VALUES (17, 1, 'params', 139);
INSERT INTO public.rs_measurement VALUES (17, 1, 'macs', 4148);
INSERT INTO public.rs_measurement VALUES (17, 1, 'bits', 1952);
INSERT INTO public.rs_measurement VALUES (18, 0.5, 'error', 0.7833333333333333);
INSERT INTO public.rs_measurement VALUES (18, 0.5, 'params', 298);
INSERT INTO public.rs_measurement VALUES (18, 0.5, 'macs', 5600);
INSERT INTO public.rs_measurement VALUES (18, 0.5, 'bits', 2488);


--
-- Data for Name: rs_objective; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.rs_objective VALUES (1, 0, 'error', 'minimize');
INSERT INTO public.rs_objective VALUES (1, 1, 'macs', 'minimize');
INSERT INTO public.rs_objective VALUES (1, 2, 'bits', 'minimize');


--
-- Data for Name: rs_prior; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.rs_prior VALUES (1, 'second', 'svd', 'rank', 1, 8, 0.08554589376142648, 0, 6);
INSERT INTO public.rs_prior VALUES (1, 'second', 'tucker2', 'rank_out', 1, 8, 0.08554589376142648, 0, 5);
INSERT INTO public.rs_prior VALUES (1, 'second', 'tucker2', 'rank_in', 1, 6, 0.08554589319355556, 0, 4);
INSERT INTO public.rs_prior VALUES (1, 'last', 'svd', 'rank', 1, 4, 0.08993113440053473, 0, 3);


--
-- Data for Name: rs_study; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.rs_study VALUES (1, 'waves', '{"study.name": "waves", "study.seed": "0", "task.factory": "waves.py:task", "task.options": "{}", "layers.include": "[''*'']", "layers.exclude": "[''first'']", "layers.factorizations": "[''svd'', ''tucker2'']", "layers.rules": "[]", "layers.tie": "[]", "priors.rule": "vbmf", "priors.level": "None", "priors.spectra": "weights", "priors.calibration": "2", "search.objectives": "[''error'', ''macs'', ''bits'']", "search.reference": "{}", "search.constraints": "[''macs <= 0.98 * dense'']", "search.sampler": "auto", "search.options": "{}", "search.weakening": "[0.0, 2.0]", "search.multiplier": "3.0", "search.round_to": "1", "search.orthogonality": "0.01", "search.entropy.low": "0.05", "search.entropy.high": "0.5", "search.seeds.dense": "True", "search.seeds.allocations": "3", "search.seeds.fractions": "[0.5]", "search.seeds.weakenings": "[1.0]", "search.seeds.points": "[]", "search.rungs.first": "0.5", "search.rungs.factor": "2.0", "training.epochs": "1.0", "training.optimizer": "adamw", "training.learning_rate": "0.005", "training.schedule": "cosine", "training.warmup": "None", "training.momentum": "0.9", "training.weight_decay": "0.0", "training.weight_decay_on": "factors", "training.gradient_clip": "5.0", "training.average": "0.0", "training.distillation": "0.0", "training.distillation_temperature": "4.0", "training.batchnorm_batches": "None", "training.orthogonality_penalty": "so", "training.orthogonality_decay": "1.0", "training.entropy_start_bits": "4.0", "training.entropy_learning_rate": "0.03", "training.entropy_warmup": "0.2", "coding.grouping": "tensor", "coding.steps": "tensor", "coding.prior": "logistic", "coding.rounding": "nearest", "latency.batch": "1", "latency.threads": "1", "latency.repeats": "30", "weights": "6488d4bb3bc2531ce1cae9ae93388f1e75fac98382cdd7151ba964b148cc1d8a", "plugin svd": "0.1.0", "plugin tucker2": "0.1.0"}', '{"study": {"study": {"name": "waves", "trials": 14, "seed": 0, "cache": "cache"}, "task": {"factory": "waves.py:task", "options": {}}, "layers": {"include": ["*"], "exclude": ["first"], "factorizations": ["svd", "tucker2"], "rules": [], "tie": []}, "priors": {"rule": "vbmf", "level": null, "spectra": "weights", "calibration": 2}, "search": {"objectives": ["error", "macs", "bits"], "reference": {}, "constraints": ["macs <= 0.98 * dense"], "sampler": "auto", "options": {}, "weakening": [0.0, 2.0], "multiplier": 3.0, "round_to": 1, "orthogonality": 0.01, "entropy": {"low": 0.05, "high": 0.5}, "seeds": {"dense": true, "allocations": 3, "fractions": [0.5], "weakenings": [1.0], "points": []}, "rungs": {"first": 0.5, "factor": 2.0}}, "training": {"epochs": 1.0, "optimizer": "adamw", "learning_rate": 0.005, "schedule": "cosine", "warmup": null, "momentum": 0.9, "weight_decay": 0.0, "weight_decay_on": "factors", "gradient_clip": 5.0, "average": 0.0, "distillation": 0.0, "distillation_temperature": 4.0, "batchnorm_batches": null, "orthogonality_penalty": "so", "orthogonality_decay": 1.0, "entropy_start_bits": 4.0, "entropy_learning_rate": 0.03, "entropy_warmup": 0.2}, "coding": {"grouping": "tensor", "steps": "tensor", "prior": "logistic", "rounding": "nearest"}, "latency": {"batch": 1, "threads": 1, "repeats": 30}}, "folder": "/golden", "coordinates": {"groups": [{"name": "second", "axes": [["second", [["svd", [{"name": "rank", "low": 1, "high": 8, "prior": 1.0, "integer": true}]], ["tucker2", [{"name": "rank_out", "low": 1, "high": 8, "prior": 1.0, "integer": true}, {"name": "rank_in", "low": 1, "high": 6, "prior": 1.0, "integer": true}]]]]]}, {"name": "last", "axes": [["last", [["svd", [{"name": "rank", "low": 1, "high": 4, "prior": 1.0, "integer": true}]]]]]}], "weakening": [0.0, 2.0], "multiplier": 3.0, "round_to": 1, "penalties": {"orthogonality": 0.01, "entropy": {"low": 0.05, "high": 0.5}}}}', '{"error": 1.2125, "macs": 10496.0, "bits": 20592.0}', '{"error": 0.0, "macs": 0.0, "bits": 0.0}', '{"error": 0.8083333333333333, "params": 640.0, "macs": 10496.0, "bits": 20592.0}', 1, '2026-11-27 20:58:56.633528', '/golden/waves.artifacts/waves', 14);


--
-- Data for Name: rs_trial; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.rs_trial VALUES (1, 1, 0, 'infeasible', 0.5, 0, 'vm:25550', 1, '2026-11-27 20:58:56.855388', '2026-11-27 20:58:56.855388', false, NULL, 'macs <= 0.98 * dense does not hold: macs is 10496', '1ec40e61d39e0c8f0690df78deae2ed8612e43248e81fe56fd47decb3d6cb5be', '{"label": "dense", "coordinates": {"weakening": 0.0, "factorization:second": "dense", "multiplier:second": 0.0, "multiplier:second:2": 0.0, "factorization:last": "dense", "multiplier:last": 0.0, "entropy": -1.4010299956639813}, "attributes": {}, "parents": {}}', '{"layers": {"second": "dense", "last": "dense"}, "penalties": {"orthogonality": 0.0, "entropy": 0.0}}');
INSERT INTO public.rs_trial VALUES (2, 1, 1, 'infeasible', 0.5, 1, 'vm:25550', 1, '2026-11-27 20:58:57.042071', '2026-11-27 20:58:57.042071', false, NULL, 'macs <= 0.98 * dense does not hold: macs is 10496', '6b418366ea13a1237bb1bbc86bf57f7e9a5745067b6d44533758f73f909b8f39', '{"label": "dense entropy", "coordinates": {"weakening": 0.0, "factorization:second": "dense", "multiplier:second": 0.0, "multiplier:second:2": 0.0, "factorization:last": "dense", "multiplier:last": 0.0, "entropy": -0.801068130067791}, "attributes": {}, "parents": {}}', '{"layers": {"second": "dense", "last": "dense"}, "penalties": {"orthogonality": 0.0, "entropy": 0.1581}}');
INSERT INTO public.rs_trial VALUES (5, 1, 2, 'failed', 1, 2, 'vm:25550', 1, '2026-11-27 20:58:59.323588', '2026-11-27 20:58:59.393162', false, NULL, 'RuntimeError: the golden trial that fails', '808705fc909b5cd4ad757d413b52d3b618973db67a1bf68baae85b1c6f263f66', '{"label": "allocation 0.58", "coordinates": {"weakening": 0.40520136089393266, "factorization:second": "tucker2", "multiplier:second": 0.5375321775691602, "multiplier:second:2": -0.5375321775691603, "factorization:last": "dense", "multiplier:last": 0.0, "entropy": -0.801068130067791}, "attributes": {}, "parents": {}}', '{"layers": {"second": {"factorization": "tucker2", "rank_out": 5, "rank_in": 2}, "last": "dense"}, "penalties": {"orthogonality": 0.01, "entropy": 0.1581}}');
INSERT INTO public.rs_trial VALUES (6, 1, 4, 'failed', 0.5, 4, 'vm:25550', 1, '2026-11-27 20:58:59.615722', '2026-11-27 20:58:59.737887', false, NULL, 'RuntimeError: the golden trial that fails', '46c3c0f3a24842a4e5d5304b2a41f4cb8a7faf429254a3d888a2d53db636f178', '{"label": "allocation 0.38", "coordinates": {"weakening": 2.0, "factorization:second": "tucker2", "multiplier:second": 0.0, "multiplier:second:2": 0.0, "factorization:last": "dense", "multiplier:last": 0.0, "entropy": -0.801068130067791}, "attributes": {}, "parents": {}}', '{"layers": {"second": {"factorization": "tucker2", "rank_out": 1, "rank_in": 1}, "last": "dense"}, "penalties": {"orthogonality": 0.01, "entropy": 0.1581}}');
INSERT INTO public.rs_trial VALUES (7, 1, 5, 'stopped', 0.5, 5, 'vm:25550', 1, '2026-11-27 20:58:59.86394', '2026-11-27 20:59:00.719151', false, NULL, '', 'a4ee605db2f6120953840c6b17c3d8434de4c643001c4d071d4e8c3ac30c7d38', '{"label": "fraction 0.5", "coordinates": {"weakening": 0.3999999999999999, "factorization:second": "svd", "multiplier:second": 0.19999999999999984, "multiplier:second:2": 0.0, "factorization:last": "svd", "multiplier:last": -0.2, "entropy": -0.801068130067791}, "attributes": {}, "parents": {}}', '{"layers": {"second": {"factorization": "svd", "rank": 4}, "last": {"factorization": "svd", "rank": 2}}, "penalties": {"orthogonality": 0.01, "entropy": 0.1581}}');
INSERT INTO public.rs_trial VALUES (8, 1, 3, 'complete', 1, 3, 'vm:25550', 1, '2026-11-27 20:59:00.787465', '2026-11-27 20:59:01.555336', true, NULL, '', '4ed9ce49c76f3966e466ee1ea5a4aa94d914e2c14e14874a8639b700f3062141', '{"label": "allocation 0.46", "coordinates": {"weakening": 0.6418955364979172, "factorization:second": "tucker2", "multiplier:second": -0.07431339050624804, "multiplier:second:2": 0.07431339050624775, "factorization:last": "dense", "multiplier:last": 0.0, "entropy": -0.801068130067791}, "attributes": {}, "parents": {}}', '{"layers": {"second": {"factorization": "tucker2", "rank_out": 2, "rank_in": 2}, "last": "dense"}, "penalties": {"orthogonality": 0.01, "entropy": 0.1581}}');
INSERT INTO public.rs_trial VALUES (10, 1, 7, 'stopped', 0.5, 7, 'vm:25550', 1, '2026-11-27 20:59:02.767597', '2026-11-27 20:59:03.912809', false, NULL, '', 'a8c8714e775fea76a5f5b0311360f8b6f65bb7cec4f21e046e2aa74d26527730', '{"label": "fraction 0.5 tucker2", "coordinates": {"weakening": 0.3999999999999999, "factorization:second": "tucker2", "multiplier:second": 0.19999999999999984, "multiplier:second:2": 0.03398500028846249, "factorization:last": "svd", "multiplier:last": -0.2, "entropy": -0.801068130067791}, "attributes": {}, "parents": {}}', '{"layers": {"second": {"factorization": "tucker2", "rank_out": 4, "rank_in": 3}, "last": {"factorization": "svd", "rank": 2}}, "penalties": {"orthogonality": 0.01, "entropy": 0.1581}}');
INSERT INTO public.rs_trial VALUES (11, 1, 6, 'complete', 1, 6, 'vm:25550', 1, '2026-11-27 20:59:03.987711', '2026-11-27 20:59:04.764469', true, NULL, '', 'f265d816f12e2440d3b759a8c20759e1f0a9ee88ab99191512621bd693b86c43', '{"label": "weakening 1", "coordinates": {"weakening": 2.0, "factorization:second": "svd", "multiplier:second": 0.0, "multiplier:second:2": 0.0, "factorization:last": "svd", "multiplier:last": 0.0, "entropy": -0.801068130067791}, "attributes": {}, "parents": {}}', '{"layers": {"second": {"factorization": "svd", "rank": 1}, "last": {"factorization": "svd", "rank": 1}}, "penalties": {"orthogonality": 0.01, "entropy": 0.1581}}');
INSERT INTO public.rs_trial VALUES (14, 1, 8, 'complete', 1, 8, 'vm:25550', 1, '2026-11-27 20:59:06.807995', '2026-11-27 20:59:07.069135', true, NULL, '', 'd74c8f4a40554c563d75c000953a1003a1c351e99d208ad3c66f25ed8561925b', '{"label": "auto", "coordinates": {"weakening": 2.0, "factorization:second": "tucker2", "multiplier:second": 0.0, "multiplier:second:2": 0.0, "factorization:last": "dense", "multiplier:last": 0.0, "entropy": -1.4010299956639813}, "attributes": {}, "parents": {}}', '{"layers": {"second": {"factorization": "tucker2", "rank_out": 1, "rank_in": 1}, "last": "dense"}, "penalties": {"orthogonality": 0.01, "entropy": 0.0}}');
INSERT INTO public.rs_trial VALUES (15, 1, 10, 'stopped', 0.5, 10, 'vm:25550', 1, '2026-11-27 20:59:07.316535', '2026-11-27 20:59:08.479237', false, NULL, '', 'fd55a5fb4195d8e72259f6875569c9962a19e94cea9b74e5a8b3f6a1db36345f', '{"label": "auto", "coordinates": {"weakening": 2.0, "factorization:second": "tucker2", "multiplier:second": 0.0, "multiplier:second:2": 0.0, "factorization:last": "dense", "multiplier:last": 0.0, "entropy": -0.4156687756324692}, "attributes": {}, "parents": {}}', '{"layers": {"second": {"factorization": "tucker2", "rank_out": 1, "rank_in": 1}, "last": "dense"}, "penalties": {"orthogonality": 0.01, "entropy": 0.384}}');
INSERT INTO public.rs_trial VALUES (16, 1, 11, 'stopped', 0.5, 11, 'vm:25550', 1, '2026-11-27 20:59:08.743487', '2026-11-27 20:59:09.783151', false, NULL, '', '600228c3e6c76d4ef4a755e3bc279b16f340266c87f4991b6c38d43430a67a5b', '{"label": "auto", "coordinates": {"weakening": 2.0, "factorization:second": "svd", "multiplier:second": 0.0, "multiplier:second:2": 0.0, "factorization:last": "dense", "multiplier:last": 0.0, "entropy": -0.3060093895392232}, "attributes": {}, "parents": {}}', '{"layers": {"second": {"factorization": "svd", "rank": 1}, "last": "dense"}, "penalties": {"orthogonality": 0.01, "entropy": 0.4943}}');
INSERT INTO public.rs_trial VALUES (17, 1, 9, 'complete', 1, 9, 'vm:25550', 1, '2026-11-27 20:59:09.881808', '2026-11-27 20:59:11.15932', true, NULL, '', '8636b48ac150257f941737733e352780e97175afda32dda307a1793081ce3022', '{"label": "auto", "coordinates": {"weakening": 2.0, "factorization:second": "tucker2", "multiplier:second": 0.0, "multiplier:second:2": 0.0, "factorization:last": "svd", "multiplier:last": 0.0, "entropy": -0.6243363860391147}, "attributes": {}, "parents": {}}', '{"layers": {"second": {"factorization": "tucker2", "rank_out": 1, "rank_in": 1}, "last": {"factorization": "svd", "rank": 1}}, "penalties": {"orthogonality": 0.01, "entropy": 0.2375}}');
INSERT INTO public.rs_trial VALUES (18, 1, 12, 'stopped', 0.5, 12, 'vm:25550', 1, '2026-11-27 20:59:11.4876', '2026-11-27 20:59:12.627876', false, NULL, '', '5497c5ab107a40190cbab83a424756d8fc65ac85b543490178c64bfb04b30b8f', '{"label": "auto", "coordinates": {"weakening": 0.537156695253124, "factorization:second": "tucker2", "multiplier:second": 0.19643258648052817, "multiplier:second:2": -0.19643258648052875, "factorization:last": "dense", "multiplier:last": 0.0, "entropy": -0.3797598101541686}, "attributes": {}, "parents": {}}', '{"layers": {"second": {"factorization": "tucker2", "rank_out": 3, "rank_in": 2}, "last": "dense"}, "penalties": {"orthogonality": 0.01, "entropy": 0.4171}}');


--
-- Data for Name: rs_version; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.rs_version VALUES ('0002');


--
-- Name: rs_study_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.rs_study_id_seq', 1, true);


--
-- Name: rs_trial_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.rs_trial_id_seq', 18, true);


--
-- Name: rs_artifact rs_artifact_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.rs_artifact
    ADD CONSTRAINT rs_artifact_pkey PRIMARY KEY (trial_id, kind, location);


--
-- Name: rs_choice rs_choice_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.rs_choice
    ADD CONSTRAINT rs_choice_pkey PRIMARY KEY (trial_id, layer, factorization, axis);


--
-- Name: rs_claim rs_claim_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.rs_claim
    ADD CONSTRAINT rs_claim_pkey PRIMARY KEY (study_id, number);


--
-- Name: rs_claim rs_claim_study_id_point_key_key; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.rs_claim
    ADD CONSTRAINT rs_claim_study_id_point_key_key UNIQUE (study_id, point_key);


--
-- Name: rs_measurement rs_measurement_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.rs_measurement
    ADD CONSTRAINT rs_measurement_pkey PRIMARY KEY (trial_id, budget, name);


--
-- Name: rs_objective rs_objective_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.rs_objective
    ADD CONSTRAINT rs_objective_pkey PRIMARY KEY (study_id, "position");


--
-- Name: rs_prior rs_prior_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.rs_prior
    ADD CONSTRAINT rs_prior_pkey PRIMARY KEY (study_id, layer, factorization, axis);


--
-- Name: rs_study rs_study_name_key; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.rs_study
    ADD CONSTRAINT rs_study_name_key UNIQUE (name);


--
-- Name: rs_study rs_study_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.rs_study
    ADD CONSTRAINT rs_study_pkey PRIMARY KEY (id);


--
-- Name: rs_trial rs_trial_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.rs_trial
    ADD CONSTRAINT rs_trial_pkey PRIMARY KEY (id);


--
-- Name: rs_trial rs_trial_study_id_number_key; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.rs_trial
    ADD CONSTRAINT rs_trial_study_id_number_key UNIQUE (study_id, number);


--
-- Name: rs_trial rs_trial_study_id_point_key_key; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.rs_trial
    ADD CONSTRAINT rs_trial_study_id_point_key_key UNIQUE (study_id, point_key);


--
-- Name: rs_version rs_version_pkc; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.rs_version
    ADD CONSTRAINT rs_version_pkc PRIMARY KEY (version_num);


--
-- Name: rs_trial_finished; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX rs_trial_finished ON public.rs_trial USING btree (study_id, finished, worker);


--
-- Name: rs_trial_front; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX rs_trial_front ON public.rs_trial USING btree (dominated_by, study_id, eligible, id, budget);


--
-- Name: rs_trial_member; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX rs_trial_member ON public.rs_trial USING btree (study_id, eligible, id, dominated_by, budget) WHERE (eligible AND ((dominated_by IS NULL) OR (dominated_by > id)));


--
-- Name: rs_trial_recorded; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX rs_trial_recorded ON public.rs_trial USING btree (study_id, id, dominated_by, eligible, budget);


--
-- Name: rs_trial_state; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX rs_trial_state ON public.rs_trial USING btree (study_id, state);


--
-- Name: rs_artifact rs_artifact_trial_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.rs_artifact
    ADD CONSTRAINT rs_artifact_trial_id_fkey FOREIGN KEY (trial_id) REFERENCES public.rs_trial(id);


--
-- Name: rs_choice rs_choice_trial_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.rs_choice
    ADD CONSTRAINT rs_choice_trial_id_fkey FOREIGN KEY (trial_id) REFERENCES public.rs_trial(id);


--
-- Name: rs_claim rs_claim_study_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.rs_claim
    ADD CONSTRAINT rs_claim_study_id_fkey FOREIGN KEY (study_id) REFERENCES public.rs_study(id);


--
-- Name: rs_measurement rs_measurement_trial_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.rs_measurement
    ADD CONSTRAINT rs_measurement_trial_id_fkey FOREIGN KEY (trial_id) REFERENCES public.rs_trial(id);


--
-- Name: rs_objective rs_objective_study_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.rs_objective
    ADD CONSTRAINT rs_objective_study_id_fkey FOREIGN KEY (study_id) REFERENCES public.rs_study(id);


--
-- Name: rs_prior rs_prior_study_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.rs_prior
    ADD CONSTRAINT rs_prior_study_id_fkey FOREIGN KEY (study_id) REFERENCES public.rs_study(id);


--
-- Name: rs_trial rs_trial_dominated_by_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.rs_trial
    ADD CONSTRAINT rs_trial_dominated_by_fkey FOREIGN KEY (dominated_by) REFERENCES public.rs_trial(id);


--
-- Name: rs_trial rs_trial_study_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.rs_trial
    ADD CONSTRAINT rs_trial_study_id_fkey FOREIGN KEY (study_id) REFERENCES public.rs_study(id);


--
-- PostgreSQL database dump complete
--


