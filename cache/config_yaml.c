/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A text passes three readers:
 *
 *   1. libyaml's events, which bound what the others may meet: one document, little
 *      nesting, no aliases;
 *   2. libyaml's document, whose nodes know their lines. It is checked against the schema
 *      here, as libcyaml stops at the first problem and gives an unknown key the line of
 *      the value before it; and it holds the origins, as a schema of libcyaml cannot say
 *      "a text or a list of texts";
 *   3. libcyaml, which fills the struct by the schema.
 */
#include "config_yaml.h"

#include "cleanup.h"

#include <cyaml/cyaml.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

#define PROBLEMS_SHOWN 10
#define DEPTH_MAX      4    /* the file, apps, an application, its origins */
#define APPS_MAX       2000 /* libcyaml grows the list by one entry at a time */

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

#define TEXT(key, type)                                                              \
	CYAML_FIELD_STRING_PTR(#key, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, type, \
			       key, 0, CYAML_UNLIMITED)

#define WORD(key, type, words)                                                     \
	CYAML_FIELD_ENUM(#key, CYAML_FLAG_OPTIONAL | CYAML_FLAG_STRICT, type, key, \
			 words, ARRAY_SIZE(words))

static const cyaml_strval_t switch_words[] = {
	{"on", CONFIG_SWITCH_ON},
	{"off", CONFIG_SWITCH_OFF},
};

static const cyaml_strval_t symlinks_words[] = {
	{"any", CONFIG_SYMLINKS_ANY},
	{"contained", CONFIG_SYMLINKS_CONTAINED},
};

static const cyaml_schema_field_t app_fields[] = {
	CYAML_FIELD_STRING_PTR("name", CYAML_FLAG_POINTER, struct config_yaml_app, name,
			       0, CYAML_UNLIMITED),
	CYAML_FIELD_IGNORE("origin", CYAML_FLAG_OPTIONAL),
	WORD(verify, struct config_yaml_app, switch_words),
	TEXT(owner, struct config_yaml_app),
	WORD(symlinks, struct config_yaml_app, symlinks_words),
	WORD(warm, struct config_yaml_app, switch_words),
	TEXT(keep, struct config_yaml_app),
	TEXT(unpack_limit, struct config_yaml_app),
	CYAML_FIELD_END,
};

static const cyaml_schema_value_t app_schema = {
	CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct config_yaml_app, app_fields),
};

static const cyaml_schema_field_t file_fields[] = {
	CYAML_FIELD_IGNORE("origin", CYAML_FLAG_OPTIONAL),
	TEXT(mount, struct config_yaml_values),
	TEXT(store, struct config_yaml_values),
	TEXT(runtime, struct config_yaml_values),
	TEXT(group, struct config_yaml_values),
	TEXT(keep, struct config_yaml_values),
	WORD(warm, struct config_yaml_values, switch_words),
	TEXT(reserve, struct config_yaml_values),
	TEXT(connect_timeout, struct config_yaml_values),
	TEXT(stall_timeout, struct config_yaml_values),
	TEXT(credentials, struct config_yaml_values),
	TEXT(known_hosts, struct config_yaml_values),
	TEXT(ca_file, struct config_yaml_values),
	CYAML_FIELD_SEQUENCE("apps", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
			     struct config_yaml_values, apps, &app_schema, 0, APPS_MAX),
	CYAML_FIELD_END,
};

static const cyaml_schema_value_t file_schema = {
	CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct config_yaml_values, file_fields),
};

#define FIELDS_MAX ARRAY_SIZE(file_fields) /* of both mappings */

struct config_yaml {
	yaml_document_t document;
	struct config_yaml_values *values; /* libcyaml's; NULL when there are no keys */
};

DEFINE_CLEANUP(struct config_yaml, config_yaml_free)

void config_problem(struct config_problems *problems, unsigned line, const char *format,
		    ...)
{
	size_t used = strlen(problems->text);
	va_list args;
	int n;

	if (problems->count++ >= PROBLEMS_SHOWN)
		return;
	n = snprintf(problems->text + used, sizeof(problems->text) - used,
		     "%s%s:%u: ", used ? "; " : "", problems->path, line);
	if (n < 0 || (size_t)n >= sizeof(problems->text) - used)
		return;
	used += (size_t)n;
	va_start(args, format);
	vsnprintf(problems->text + used, sizeof(problems->text) - used, format, args);
	va_end(args);
}

/* libcyaml's messages: the first is the cause, the first line named is the cause's. */
struct cyaml_note {
	char text[256];
	unsigned line;
};

static void cyaml_listen(cyaml_log_t level, void *context, const char *format,
			 va_list args)
{
	struct cyaml_note *note = context;
	char text[sizeof(note->text)];
	const char *line;

	vsnprintf(text, sizeof(text), format, args);
	text[strcspn(text, "\n")] = '\0';
	if (!note->text[0])
		memcpy(note->text, text, sizeof(text));
	line = strstr(text, "(line: ");
	if (line && !note->line)
		sscanf(line, "(line: %u", &note->line);
}

static cyaml_config_t cyaml_config(struct cyaml_note *note)
{
	return (cyaml_config_t){
		.log_fn = cyaml_listen,
		.log_ctx = note,
		.log_level = CYAML_LOG_ERROR,
		.mem_fn = cyaml_mem,
		.flags = CYAML_CFG_NO_ALIAS,
	};
}

static unsigned node_line(const yaml_node_t *node)
{
	return (unsigned)node->start_mark.line + 1;
}

static const char *scalar_text(const yaml_node_t *node)
{
	return (const char *)node->data.scalar.value;
}

static yaml_node_t *node_at(const struct config_yaml *yaml, int id)
{
	/* Only reads, but libyaml does not say so. */
	return yaml_document_get_node((yaml_document_t *)&yaml->document, id);
}

static size_t sequence_size(const yaml_node_t *node)
{
	return (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
}

static yaml_node_t *sequence_item(const struct config_yaml *yaml, const yaml_node_t *node,
				  size_t index)
{
	return node_at(yaml, node->data.sequence.items.start[index]);
}

/* The value of @key; NULL when it is missing. Not before the keys were checked. */
static const yaml_node_t *mapping_value(const struct config_yaml *yaml,
					const yaml_node_t *node, const char *key)
{
	const yaml_node_pair_t *pair = node->data.mapping.pairs.start;

	for (; pair < node->data.mapping.pairs.top; pair++)
		if (!strcmp(scalar_text(node_at(yaml, pair->key)), key))
			return node_at(yaml, pair->value);
	return NULL;
}

/* The mapping of the file or of an application; NULL when there is none. */
static const yaml_node_t *mapping_of(const struct config_yaml *yaml, size_t app)
{
	const yaml_node_t *root = node_at(yaml, 1), *apps;

	if (!yaml->values || app == CONFIG_YAML_TOP)
		return yaml->values ? root : NULL;
	apps = mapping_value(yaml, root, "apps");
	return apps && app < sequence_size(apps) ? sequence_item(yaml, apps, app) : NULL;
}

static void check_word(const yaml_node_t *node, const cyaml_schema_value_t *schema,
		       const char *key, struct config_problems *problems)
{
	const cyaml_strval_t *words = schema->enumeration.strings;

	for (uint32_t i = 0; i < schema->enumeration.count; i++)
		if (!strcmp(words[i].str, scalar_text(node)))
			return;
	/* Each enumeration of the schema has two words. */
	config_problem(problems, node_line(node), "'%s' must be '%s' or '%s'", key,
		       words[0].str, words[1].str);
}

static void check_origin(const struct config_yaml *yaml, const yaml_node_t *node,
			 struct config_problems *problems)
{
	size_t count = node->type == YAML_SEQUENCE_NODE ? sequence_size(node) : 0;

	if (node->type == YAML_MAPPING_NODE)
		config_problem(problems, node_line(node),
			       "'origin' must be a URL or a list of URLs");
	for (size_t i = 0; i < count; i++) {
		const yaml_node_t *item = sequence_item(yaml, node, i);

		if (item->type != YAML_SCALAR_NODE)
			config_problem(problems, node_line(item),
				       "an entry of 'origin' must be a URL");
	}
}

static void check_mapping(const struct config_yaml *yaml, const yaml_node_t *node,
			  const cyaml_schema_field_t *fields,
			  struct config_problems *problems);

static void check_apps(const struct config_yaml *yaml, const yaml_node_t *node,
		       const cyaml_schema_value_t *schema,
		       struct config_problems *problems)
{
	for (size_t i = 0; i < sequence_size(node); i++) {
		const yaml_node_t *item = sequence_item(yaml, node, i);

		if (item->type == YAML_MAPPING_NODE)
			check_mapping(yaml, item, schema->sequence.entry->mapping.fields,
				      problems);
		else
			config_problem(problems, node_line(item),
				       "an entry of 'apps' must be a mapping with a "
				       "'name'");
	}
}

static void check_value(const struct config_yaml *yaml, const yaml_node_t *node,
			const cyaml_schema_field_t *field,
			struct config_problems *problems)
{
	switch (field->value.type) {
	case CYAML_IGNORE:
		check_origin(yaml, node, problems);
		return;
	case CYAML_SEQUENCE:
		if (node->type == YAML_SEQUENCE_NODE)
			check_apps(yaml, node, &field->value, problems);
		else
			config_problem(problems, node_line(node), "'%s' must be a list",
				       field->key);
		return;
	default:
		if (node->type != YAML_SCALAR_NODE)
			config_problem(problems, node_line(node),
				       "'%s' must be a single value", field->key);
		else if (field->value.type == CYAML_ENUM)
			check_word(node, &field->value, field->key, problems);
	}
}

/* The index of @key in @fields, or that of the end. */
static size_t field_index(const cyaml_schema_field_t *fields, const char *key)
{
	size_t i = 0;

	while (fields[i].key && strcmp(fields[i].key, key))
		i++;
	return i;
}

static void check_mapping(const struct config_yaml *yaml, const yaml_node_t *node,
			  const cyaml_schema_field_t *fields,
			  struct config_problems *problems)
{
	const yaml_node_pair_t *pair = node->data.mapping.pairs.start;
	bool seen[FIELDS_MAX] = {false};

	for (; pair < node->data.mapping.pairs.top; pair++) {
		const yaml_node_t *key = node_at(yaml, pair->key);
		size_t i;

		if (key->type != YAML_SCALAR_NODE) {
			config_problem(problems, node_line(key), "a key must be a word");
			continue;
		}
		i = field_index(fields, scalar_text(key));
		if (!fields[i].key)
			config_problem(problems, node_line(key), "unknown key '%.64s'",
				       scalar_text(key));
		else if (seen[i])
			config_problem(problems, node_line(key),
				       "'%s' stands here a second time", fields[i].key);
		else
			check_value(yaml, node_at(yaml, pair->value), &fields[i],
				    problems);
		seen[i] = true;
	}
	for (size_t i = 0; fields[i].key; i++)
		if (!seen[i] && !(fields[i].value.flags & CYAML_FLAG_OPTIONAL))
			config_problem(problems, node_line(node), "'%s' is missing",
				       fields[i].key);
}

/* A document of "---" alone is an empty scalar. */
static bool document_empty(const struct config_yaml *yaml)
{
	const yaml_node_t *root = node_at(yaml, 1);

	return !root || (root->type == YAML_SCALAR_NODE && !root->data.scalar.length &&
			 root->data.scalar.style == YAML_PLAIN_SCALAR_STYLE);
}

static void check_document(const struct config_yaml *yaml,
			   struct config_problems *problems)
{
	const yaml_node_t *root = node_at(yaml, 1);

	if (root->type == YAML_MAPPING_NODE)
		check_mapping(yaml, root, file_fields, problems);
	else
		config_problem(problems, node_line(root),
			       "the file must be a mapping, of lines like 'key: value'");
}

static unsigned line_at(const char *text, size_t size, size_t offset)
{
	unsigned line = 1;

	for (size_t i = 0; i < size && i < offset; i++)
		line += text[i] == '\n';
	return line;
}

static int parser_failed(const yaml_parser_t *parser, const char *text, size_t size,
			 struct config_problems *problems)
{
	unsigned line = (unsigned)parser->problem_mark.line + 1;

	if (parser->error == YAML_MEMORY_ERROR)
		return -ENOMEM;
	if (parser->error == YAML_READER_ERROR)
		line = line_at(text, size, parser->problem_offset);
	config_problem(problems, line, "not YAML: %s",
		       parser->problem ? parser->problem : "cannot be read");
	return -EINVAL;
}

static bool scalar_printable(const yaml_char_t *value, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (value[i] < ' ' || value[i] == 0x7f)
			return false;
	return true;
}

/* What is wrong with an event by itself, or NULL. */
static const char *event_problem(const yaml_event_t *event)
{
	static const char named[] = "anchors, aliases and tags are not supported";

	switch (event->type) {
	case YAML_ALIAS_EVENT:
		return named;
	case YAML_SEQUENCE_START_EVENT:
		return event->data.sequence_start.anchor || event->data.sequence_start.tag
			       ? named
			       : NULL;
	case YAML_MAPPING_START_EVENT:
		return event->data.mapping_start.anchor || event->data.mapping_start.tag
			       ? named
			       : NULL;
	case YAML_SCALAR_EVENT:
		if (event->data.scalar.anchor || event->data.scalar.tag)
			return named;
		if (!scalar_printable(event->data.scalar.value,
				      event->data.scalar.length))
			return "a value contains a line break or a control character";
		return NULL;
	default:
		return NULL;
	}
}

static int event_depth(const yaml_event_t *event)
{
	switch (event->type) {
	case YAML_SEQUENCE_START_EVENT:
	case YAML_MAPPING_START_EVENT:
		return 1;
	case YAML_SEQUENCE_END_EVENT:
	case YAML_MAPPING_END_EVENT:
		return -1;
	default:
		return 0;
	}
}

/* Parse to the end, or to the first problem. */
static int scan_events(yaml_parser_t *parser, const char *text, size_t size,
		       struct config_problems *problems)
{
	int depth = 0, documents = 0;
	bool end = false;

	while (!end) {
		const char *problem;
		yaml_event_t event;

		if (!yaml_parser_parse(parser, &event))
			return parser_failed(parser, text, size, problems);
		depth += event_depth(&event);
		documents += event.type == YAML_DOCUMENT_START_EVENT;
		problem = event_problem(&event);
		if (depth > DEPTH_MAX)
			problem = "nested too deeply";
		if (documents > 1)
			problem = "a second document";
		if (problem)
			config_problem(problems, (unsigned)event.start_mark.line + 1,
				       "%s", problem);
		end = problem || event.type == YAML_STREAM_END_EVENT;
		yaml_event_delete(&event);
	}
	return problems->count ? -EINVAL : 0;
}

static int parser_init(yaml_parser_t *parser, const char *text, size_t size)
{
	if (!yaml_parser_initialize(parser))
		return -ENOMEM;
	yaml_parser_set_input_string(parser, (const unsigned char *)text, size);
	return 0;
}

static int bound_text(const char *text, size_t size, struct config_problems *problems)
{
	yaml_parser_t parser;
	int r;

	r = parser_init(&parser, text, size);
	if (r < 0)
		return r;
	r = scan_events(&parser, text, size, problems);
	yaml_parser_delete(&parser);
	return r;
}

static int load_document(const char *text, size_t size, yaml_document_t *ret,
			 struct config_problems *problems)
{
	yaml_parser_t parser;
	int r;

	r = parser_init(&parser, text, size);
	if (r < 0)
		return r;
	if (!yaml_parser_load(&parser, ret))
		r = parser_failed(&parser, text, size, problems);
	yaml_parser_delete(&parser);
	return r;
}

static int load_values(const char *text, size_t size, struct config_yaml_values **ret,
		       struct config_problems *problems)
{
	struct cyaml_note note = {.text = ""};
	cyaml_config_t config = cyaml_config(&note);
	cyaml_data_t *values = NULL;
	cyaml_err_t e;

	e = cyaml_load_data((const uint8_t *)text, size, &config, &file_schema, &values,
			    NULL);
	if (e == CYAML_ERR_OOM)
		return -ENOMEM;
	if (e != CYAML_OK) {
		config_problem(problems, note.line ? note.line : 1, "%s",
			       note.text[0] ? note.text : cyaml_strerror(e));
		return -EINVAL;
	}
	*ret = values;
	return 0;
}

void config_yaml_free(struct config_yaml *yaml)
{
	cyaml_config_t config = cyaml_config(NULL);

	if (!yaml)
		return;
	if (yaml->values)
		cyaml_free(&config, &file_schema, yaml->values, 0);
	yaml_document_delete(&yaml->document);
	free(yaml);
}

int config_yaml_parse(const char *text, size_t size, struct config_yaml **ret,
		      struct config_problems *problems)
{
	cleanup(config_yaml_free_ptr) struct config_yaml *yaml = NULL;
	int r;

	r = bound_text(text, size, problems);
	if (r < 0)
		return r;
	yaml = calloc(1, sizeof(*yaml));
	if (!yaml)
		return -ENOMEM;
	r = load_document(text, size, &yaml->document, problems);
	if (r < 0)
		return r;
	if (!document_empty(yaml)) {
		check_document(yaml, problems);
		if (problems->count)
			return -EINVAL;
		r = load_values(text, size, &yaml->values, problems);
		if (r < 0)
			return r;
	}
	*ret = take_ptr(yaml);
	return 0;
}

const struct config_yaml_values *config_yaml_values(const struct config_yaml *yaml)
{
	static const struct config_yaml_values none;

	return yaml->values ? yaml->values : &none;
}

unsigned config_yaml_line(const struct config_yaml *yaml, size_t app, const char *key)
{
	const yaml_node_t *mapping = mapping_of(yaml, app), *value;

	value = mapping ? mapping_value(yaml, mapping, key) : NULL;
	return value ? node_line(value) : 0;
}

const char *config_yaml_origin(const struct config_yaml *yaml, size_t app, size_t index,
			       unsigned *ret_line)
{
	const yaml_node_t *mapping = mapping_of(yaml, app), *value;

	value = mapping ? mapping_value(yaml, mapping, "origin") : NULL;
	if (value && value->type == YAML_SEQUENCE_NODE)
		value = index < sequence_size(value) ? sequence_item(yaml, value, index)
						     : NULL;
	else if (index > 0)
		value = NULL;
	if (!value)
		return NULL;
	*ret_line = node_line(value);
	return scalar_text(value);
}
