/* SPDX-License-Identifier: Apache-2.0 */
#include "findings.h"

#include "cleanup.h"
#include "error.h"
#include "print.h"

#include <stdarg.h>
#include <stdio.h>

void finding_add(struct findings *findings, enum finding_level level, const char *check,
		 const char *format, ...)
{
	static const char *const names[] = {
		[FINDING_OK] = "ok",
		[FINDING_WARNING] = "warning",
		[FINDING_PROBLEM] = "problem",
	};
	char text[ERROR_TEXT_MAX];
	struct error clean;
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	/* Names of processes and paths may hold anything. */
	error_set(&clean, 0, "%s", text);
	findings->counts[level]++;
	if (!findings->json) {
		print_line(stdout, "%s: %s", names[level], clean.text);
		fflush(stdout);
		return;
	}
	if (!findings->list)
		findings->list = json_array();
	json_array_append_new(findings->list,
			      json_pack("{s:s, s:s, s:s}", "level", names[level], "check",
					check, "text", clean.text));
}

unsigned findings_end(struct findings *findings)
{
	cleanup(json_decrefp) json_t *reply = NULL;

	if (!findings->json)
		return findings->counts[FINDING_PROBLEM];
	reply = json_pack("{s:i, s:i, s:i, s:o}", "schema", 1, "problems",
			  (int)findings->counts[FINDING_PROBLEM], "warnings",
			  (int)findings->counts[FINDING_WARNING], "findings",
			  findings->list ? findings->list : json_array());
	findings->list = NULL;
	print_json(reply);
	return findings->counts[FINDING_PROBLEM];
}
