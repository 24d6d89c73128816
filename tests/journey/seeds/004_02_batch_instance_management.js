class InstanceManager {
  constructor(apiBase = 'http://localhost:3000') {
    this.apiBase = apiBase;
  }

  async createInstances(configs) {
    const promises = configs.map(config => this.createInstance(config));
    const results = await Promise.allSettled(promises);
    
    const successful = results
      .filter(r => r.status === 'fulfilled')
      .map(r => r.value);
    
    const failed = results
      .filter(r => r.status === 'rejected')
      .map(r => r.reason);
    
    return { successful, failed };
  }

  async createInstance(config) {
    const response = await fetch(`${this.apiBase}/api/instances`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify(config)
    });

    if (!response.ok) {
      const error = await response.json();
      throw new Error(`Failed to create ${config.name}: ${error.error.message}`);
    }

    return await response.json();
  }

  async waitForAllReady(instanceIds, maxWaitTime = 600000) {
    const promises = instanceIds.map(id => this.waitForReady(id, maxWaitTime));
    return await Promise.allSettled(promises);
  }

  async waitForReady(instanceId, maxWaitTime = 600000) {
    const startTime = Date.now();
    let delay = 2000;
    
    while (Date.now() - startTime < maxWaitTime) {
      const response = await fetch(`${this.apiBase}/api/instances/${instanceId}`);
      const instance = await response.json();
      
      if (instance.status === 'ready') return instance;
      if (instance.status === 'failed') throw new Error(`Instance ${instanceId} failed`);
      
      await new Promise(resolve => setTimeout(resolve, delay));
      delay = Math.min(delay * 1.5, 30000);
    }
    
    throw new Error(`Timeout waiting for instance ${instanceId}`);
  }
}

// Usage
async function batchExample() {
  const manager = new InstanceManager();
  
  const configs = [
    { name: 'worker-1', productName: 'RTX 4090 24GB', templateId: 'pytorch-jupyter' },
    { name: 'worker-2', productName: 'RTX 4090 24GB', templateId: 'pytorch-jupyter' },
    { name: 'worker-3', productName: 'RTX 4090 24GB', templateId: 'pytorch-jupyter' }
  ];

  try {
    // Create all instances
    const { successful, failed } = await manager.createInstances(configs);
    console.log(`Created ${successful.length} instances, ${failed.length} failed`);

    // Wait for all to be ready
    const instanceIds = successful.map(r => r.instanceId);
    const readyResults = await manager.waitForAllReady(instanceIds);
    
    const ready = readyResults.filter(r => r.status === 'fulfilled').map(r => r.value);
    console.log(`${ready.length} instances are ready`);
    
    return ready;
  } catch (error) {
    console.error('Batch operation failed:', error);
    throw error;
  }
}
