/* check.h - the little that our unit tests need. SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GOV_CHECK_H
#define GOV_CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(cond)                                                          \
	do {                                                                 \
		if (!(cond)) {                                               \
			fprintf(stderr, "%s:%d: %s: failed: %s\n", __FILE__, \
				__LINE__, __func__, #cond);                  \
			exit(1);                                             \
		}                                                            \
	} while (0)

#define CHECK_STR(got, want)                                                 \
	do {                                                                 \
		const char *_got = (got), *_want = (want);                   \
		if (!_got || strcmp(_got, _want)) {                          \
			fprintf(stderr, "%s:%d: %s: got \"%s\", want \"%s\"\n", \
				__FILE__, __LINE__, __func__,                \
				_got ? _got : "(null)", _want);              \
			exit(1);                                             \
		}                                                            \
	} while (0)

#endif
