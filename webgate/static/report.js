// The report is the server's; here are only the buttons that every page has.

import { logoutButton } from "./api.js";
import { by, dialogs, pageKeys } from "./dom.js";
import { notifyButton } from "./notify.js";

notifyButton(by("notify"));
logoutButton();
dialogs();
pageKeys({});
