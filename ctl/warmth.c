/* SPDX-License-Identifier: Apache-2.0 */
#include "warmth.h"

#include "cleanup.h"
#include "print.h"
#include "reply.h"

#include <errno.h>

/* An application that has gone meanwhile is left out. */
static int gather_app(struct command *command, const char *app, json_t *all,
		      struct error *err)
{
	cleanup(json_decrefp) json_t *reply = NULL;
	cleanup(free_ptr) char *url = NULL;
	int r = client_url(&url, err, "/v1/apps/", app, "/warmth", NULL);

	if (r == 0)
		r = client_request(command->client, "GET", url, NULL, &reply, err);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	json_object_del(reply, "schema");
	return json_array_append(all, reply) < 0
		       ? error_set(err, -ENOMEM, "not enough memory")
		       : 0;
}

int warmth_gather(struct command *command, json_t **ret, struct error *err)
{
	cleanup(json_decrefp) json_t *reply = NULL, *all = json_array();
	cleanup(free_ptr) char *url = NULL;
	json_t *apps = NULL, *app;
	size_t i;
	int r = client_url(&url, err, "/v1/apps", NULL);

	if (r == 0)
		r = client_request(command->client, "GET", url, NULL, &reply, err);
	if (r == 0)
		r = reply_read(reply, err, "{s:o}", "apps", &apps);
	if (r < 0)
		return r;
	json_array_foreach (apps, i, app) {
		const char *name;

		r = reply_read(app, err, "{s:s}", "name", &name);
		if (r == 0)
			r = gather_app(command, name, all, err);
		if (r < 0)
			return r;
	}
	*ret = take_ptr(all);
	return 0;
}

static int print_channel(const char *app, json_t *json, struct error *err)
{
	char warm[32], all[32];
	const char *channel, *version;
	json_t *warm_bytes, *bytes;
	uint64_t part, whole;
	int r = reply_read(json, err, "{s:s, s:s, s:o, s:o}", "channel", &channel,
			   "version", &version, "warm_bytes", &warm_bytes, "bytes",
			   &bytes);

	if (r < 0)
		return r;
	part = reply_number(warm_bytes, 0);
	whole = reply_number(bytes, 0);
	print_line(stdout, "warm       %s %s is %s: %ju %%, %s of %s", app, channel,
		   version, (uintmax_t)(whole ? (double)part * 100 / (double)whole : 0),
		   reply_size(warm_bytes, warm), reply_size(bytes, all));
	return 0;
}

int warmth_print(json_t *warmth, struct error *err)
{
	json_t *app, *channels, *channel;
	const char *name;
	size_t i, j;
	int r = 0;

	json_array_foreach (warmth, i, app) {
		r = reply_read(app, err, "{s:s, s:o}", "app", &name, "channels",
			       &channels);
		if (r < 0)
			return r;
		json_array_foreach (channels, j, channel) {
			r = print_channel(name, channel, err);
			if (r < 0)
				return r;
		}
	}
	return 0;
}
