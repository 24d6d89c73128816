class InstanceUsageTracker {
  constructor(instanceId, apiBase = 'http://localhost:3000') {
    this.instanceId = instanceId;
    this.apiBase = apiBase;
    this.updateInterval = null;
  }

  startTracking(intervalMinutes = 10) {
    // Update immediately
    this.updateLastUsed();
    
    // Set up periodic updates
    this.updateInterval = setInterval(() => {
      this.updateLastUsed();
    }, intervalMinutes * 60 * 1000);
    
    console.log(`Started usage tracking for instance ${this.instanceId}`);
  }

  stopTracking() {
    if (this.updateInterval) {
      clearInterval(this.updateInterval);
      this.updateInterval = null;
      console.log(`Stopped usage tracking for instance ${this.instanceId}`);
    }
  }

  async updateLastUsed() {
    try {
      const response = await fetch(`${this.apiBase}/api/instances/${this.instanceId}/last-used`, {
        method: 'PUT',
        headers: { 'Content-Type': 'application/json' }
      });

      if (response.ok) {
        const result = await response.json();
        console.log(`Updated last used time: ${result.lastUsedAt}`);
      } else {
        console.error('Failed to update last used time:', response.statusText);
      }
    } catch (error) {
      console.error('Error updating last used time:', error);
    }
  }
}

// Usage
const tracker = new InstanceUsageTracker('inst_abc123def456');

// Start tracking when beginning work
tracker.startTracking(10); // Update every 10 minutes

// Stop tracking when done
// tracker.stopTracking();
